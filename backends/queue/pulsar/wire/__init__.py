"""Producing to Pulsar over its binary protocol, on the event loop; ARCHITECTURE.md has why the client library does not.

Source: the protocol's page in Pulsar's documentation and its ``PulsarApi.proto``. Of it, what a producer needs:
connect, look a topic up, open a producer, send, be answered. Consumers, readers and topics' metadata are the client
library's.
"""
