"""Run a temporary PostgreSQL with pgtest: prints its address as JSON, and ends with its standard input.

PostgreSQL refuses to run as root. This imports what it needs as root, then becomes user ``postgres`` for good.
"""

import json
import os
import pwd
import sys
import tempfile

from pgtest.pgtest import PGTest


def main():
    if os.getuid() == 0:
        user = pwd.getpwnam('postgres')
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.environ |= {'HOME': '/tmp', 'USER': 'postgres'}
    # The folder of whoever started this need not be open to that user.
    os.chdir(tempfile.gettempdir())
    with PGTest() as server:
        print(json.dumps({'port': server.port, 'user': server.username}), flush=True)
        sys.stdin.read()


if __name__ == '__main__':
    main()
