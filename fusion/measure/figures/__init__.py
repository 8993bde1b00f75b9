"""Pictures of what was measured, drawn without pyplot: no window, no global state."""

from fusion.errors import check_installed

check_installed("matplotlib")
