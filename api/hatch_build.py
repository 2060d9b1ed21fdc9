"""Puts the chat widget that was built into the wheel, where ``fleetprompt_api.widget_files`` looks first."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WidgetHook(BuildHookInterface[Any]):
    """Adds ``widget/dist`` of the source tree, which ``npm run build`` makes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files. An editable installation reads them where they are."""
        built = Path(self.root).parent / "widget" / "dist"
        if version == "editable":
            return
        if not (built / "manifest.json").is_file():
            self.app.display_warning("widget/dist is not built: this wheel has no chat widget")
            return
        for file in built.iterdir():
            build_data["force_include"][str(file)] = f"fleetprompt_api/widget/{file.name}"
