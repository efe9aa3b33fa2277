"""Room-level extensions in Synapse: guarded, brought in, and at home.

It judges what local users send, lets service users into rooms that want them, and gives every local user a
Home room. It holds no money and knows no business rule, and it never listens to `on_new_event`: what services
do about events is their own affair, and reaches them as application-service transactions.
"""

from synapse_modules.room_extensions.module import RoomExtensions

__all__ = ["RoomExtensions"]
