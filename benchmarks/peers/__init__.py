"""Others' tools on the same work, in an environment of their own.

environment.py   the environment: made, and asked what is in it;  the table's side, in ours
peer.py          what each peer is measured on;  __main__.py  measures one;  the peers' side, in theirs
pools.py dask.py ray.py parsl.py executorlib.py celery.py   one for each
"""
