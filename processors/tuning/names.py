"""Names of this door: files, jobs, and the models that jobs made. A name is never a path."""

import re
from typing import NamedTuple

from schemas.adapters import ROLE
from schemas.words import sane_company

FILE_PREFIX, JOB_PREFIX = "file-", "ftjob-"
FILE = re.compile(r"file-[0-9a-f]{24}")
JOB = re.compile(r"ftjob-[0-9a-f]{24}")
FILE_BYTES, NAME_BYTES = 64 << 20, 255
"""What a file and its name may have."""
_LATEST = 2**63


def new_name(prefix: str, now: int, dice: str) -> str:
    """Sorted, the newest is first. `dice`: eight hexadecimal letters."""
    return f"{prefix}{_LATEST - now:016x}{dice}"


class TunedModel(NamedTuple):
    """`ft:base:company:role:version`, which is company/role@version, trained on that base."""

    base: str
    company: str
    role: str
    version: int

    def __str__(self) -> str:
        return f"ft:{self.base}:{self.company}:{self.role}:{self.version}"

    @property
    def adapter(self) -> str:
        return f"{self.company}/{self.role}"


def tuned_model(name: str) -> TunedModel | None:
    """None where it is the name of no such model."""
    head, *parts = name.rsplit(":", 3)
    if not head.startswith("ft:") or len(parts) != 3:
        return None
    base, (company, role, version) = head.removeprefix("ft:"), parts
    if not (base and sane_company(company) and ROLE.fullmatch(role) and re.fullmatch("[1-9][0-9]{0,8}", version)):
        return None
    return TunedModel(base, company, role, int(version))
