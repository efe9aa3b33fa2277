"""Service links: two services of the same kind on two homeservers talk over Matrix federation alone.

`protocol` is the form of a message and the rules of numbering, pure; `feature` what a link needs of the
service and of the road; `storage` keeps links in the service's database; `rooms` finds and makes the room;
`link` sends, acknowledges and asks again; `switchboard` holds all links of one service. The same in words is
docs/protocol/links.md.
"""
