from collections.abc import Callable
from typing import Literal

def get_original(
    mod_name: Literal["_thread"], item_name: Literal["get_ident"]
) -> Callable[[], int]: ...
