"""Who is a contact of whom, read from Synapse and told to the services that may know.

It reads account data and memberships, and writes for a person only what their own service asks in their name:
a tag, a switch, a direct room with somebody new. It judges nothing: what follows from a contact is the
services' affair. It never listens to `on_new_event`; what changed is read from the tables in which Synapse
itself keeps it, so nothing is missed while nobody asks.
"""

from synapse_modules.contacts.module import Contacts

__all__ = ["Contacts"]
