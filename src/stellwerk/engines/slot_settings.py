"""What the slots are told by the configuration."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from stellwerk.engines.launching import EnginePrograms
from stellwerk.engines.options import EngineDefaults, EngineOverrides
from stellwerk.engines.supervisor import SupervisorSettings

DEMO_MODEL = Path(__file__).with_name("demo") / "stellwerk-demo.gguf"


class SlotSettings(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path | None = None
    """Where the user's model files lie."""
    state: Path | None = None
    """Folder in which is kept what has to survive a restart; without one nothing does."""
    bundled: tuple[Path, ...] = (DEMO_MODEL,)
    """Files that ship with the package; the first slot is theirs as long as another is free."""
    preload: tuple[str, ...] = (DEMO_MODEL.stem,)
    """Ids of models that are loaded at the start, in the background, unless somebody has unloaded them."""
    named: Mapping[str, Path] = msgspec.field(default_factory=dict)
    """Models outside the folder, by id."""
    projectors: tuple[Path, ...] = ()
    """Projectors outside the folder."""
    first_port: int = 4801
    count: int = 7
    scan_interval: float = 5.0
    """Seconds between two looks into the folder."""
    rescan_after: float = 1.0
    """An unknown model is looked for again when the last look is older than so many seconds."""
    defaults: EngineDefaults = EngineDefaults()
    overrides: Mapping[str, EngineOverrides] = msgspec.field(default_factory=dict)
    """What the configuration says of single models, by id."""
    programs: EnginePrograms = EnginePrograms()
    supervisor: SupervisorSettings = SupervisorSettings()
    memory_mib: float = 0.0
    """For all engines together; 0 is what the machine has, less a reserve."""
    turn_seconds: float = 10.0
    """A busy model keeps its place for so long, or as long as its load took, before it makes room for another one."""
    room_seconds: float = 900.0
    """The longest that a model waits for others to make room: longer than any request may take."""
    place_interval: float = 5.0
    """Seconds between two times that a waiting request is told its place."""
    sweep_interval: float = 1.0
    """Seconds between two looks for models that nobody uses any more."""
