from typing import Any

build_info: dict[str, Any]
