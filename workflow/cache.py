"""Objects in DVC's cache are used only if their bytes have the hash that they are named by.

DVC trusts an object as long as its file is read-only, but root, a failing disk or a program that changes modes can
still alter it: DVC would restore the broken bytes and call them up to date. Here it looks at size, inode and
modification time, by which it remembers hashes, and hashes every byte of what it restores. A broken object is removed,
as DVC does with writable ones, so its stage is not restored but runs again.
"""

import sys
from os.path import relpath
from typing import Any

from dvc.stage.cache import StageCache
from dvc_data.fsutils import _localfs_info
from dvc_data.hashfile import transfer
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.meta import Meta
from dvc_objects.errors import ObjectFormatError

from mdpipe.data.artifacts.files import disk_full_errno

FOLDER = ".dir"
"""The end of a folder's hash in names, but not in all that DVC remembers."""

_restore = StageCache.restore
_log_exception = transfer._log_exception


def verify_objects(*, remove: bool) -> None:
    """Have DVC in this process verify objects by their content.

    With `remove`, a broken object is removed; otherwise it is only called missing, as for a dry run.
    """
    hashed: set[str] = set()
    """The objects of which every byte was hashed since a restoration began."""
    restoring = False

    def check(self: Any, oid: str, check_hash: bool = True, _info: dict[str, Any] | None = None) -> Meta:
        path: str = self.oid_to_path(oid)
        info = _info or _localfs_info(path)
        if check_hash and oid not in hashed:
            _, found = hash_file(path, self.fs, self.hash_name, None if restoring else self.state, info=info)
            digest = str(found.value).removesuffix(FOLDER)
            if digest != oid.removesuffix(FOLDER):
                sys.stderr.write(f"{relpath(path)} is broken: its bytes have the hash {digest}\n")
                if remove:
                    self.fs.remove(path)
                raise ObjectFormatError(f"{path} is broken")
            if restoring:
                hashed.add(oid)
        return Meta.from_info(info)

    def restore(self: StageCache, *args: Any, **kwargs: Any) -> None:
        nonlocal restoring
        restoring = True
        try:
            _restore(self, *args, **kwargs)
        finally:
            restoring = False
            hashed.clear()

    LocalHashFileDB.check = check  # type: ignore[method-assign]
    StageCache.restore = restore


def stop_at_full_disk() -> None:
    """Have DVC in this process fail where it cannot store an output for lack of room.

    It would say so, store what fits, and end as if nothing had happened.
    """

    def log_exception(oid: str, exc: BaseException) -> None:
        if disk_full_errno(exc) is not None:
            raise exc
        _log_exception(oid, exc)

    transfer._log_exception = log_exception
