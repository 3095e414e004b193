"""Rules as data: what an installation wants done with its events, kept in the registry (docs/rules.md).

A ``ports.registry.Rule`` is compiled once, off the hot path, into a small object with a ``rule`` and one method; a
``RuleSet`` finds those of an event's type and source by dictionary. Per event, in this order:

* ``validation``: an event that is not as it should be is kept, marked, and mapped nowhere
* ``reshaping``: the first template that fits makes the properties, the event's context or the session's anew
* ``compliance``: fields go, or become hashes, unless the customer has consented
* ``traits``: properties into the event's traits, tags and journey state
* ``to_profile``: the event into the profile; then ``compliance`` for the profile's own fields

``touch`` leads one event through them and on into its profile; ``live`` keeps the set in step with the registry;
``dry_run`` shows what would happen. Everything but ``live`` is pure.

Run-time faults are warnings on the event. A rule can't raise, lose an event, or make one endless: see the bounds of
each module.
"""
