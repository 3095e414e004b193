"""The store on Elasticsearch: partitions are indices, the directory is one more, and the server is the authority.

``store`` puts the parts together. Below it: ``connection`` (requests and errors), ``names`` and ``mappings`` (what is
in the cluster, pure), ``indices`` (partitions), ``bulk`` and ``flight`` (the write's transport), ``writing`` (its
results), ``rescue`` (documents that do not fit the mapping), ``events``, ``records``, ``directory``, ``reading``,
``where``, ``searching``, ``health`` and ``lifecycle``.

It is reached over the client's low-level transport with bytes that are ready to go: documents are never decoded and
encoded again on the way in or out, and no header ties it to one major version of the server (8 and 9 are meant).
"""

from tracardi_lite.backends.store.elasticsearch.store import ElasticsearchStore, open_store

__all__ = ["ElasticsearchStore", "open_store"]
