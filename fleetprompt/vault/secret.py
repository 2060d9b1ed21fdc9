"""A string that does not show itself."""

import hmac
from typing import Any, NoReturn, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MASK = "**********"


class Secret:
    """Text that is masked wherever it is printed, formatted, logged or written as JSON.

    ``reveal`` is the one way to its content, so that a search for it finds every use. Not a
    ``str``: joining one into a longer text by accident would show it. ``ValueError`` for text that
    UTF-8 cannot hold (a lone surrogate); the error does not carry the text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not _is_utf8(text):
            raise ValueError("a secret must be text that UTF-8 can hold")
        self._text = text

    def reveal(self) -> str:
        """The text in clear. Keep it in no variable that lives long, and out of every message."""
        return self._text

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(
            self._text.encode(), other._text.encode()
        )

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled; read it from the vault where it is needed")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Take a string or a ``Secret`` in, give the mask out."""
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema(
                [core_schema.is_instance_schema(cls), from_text]
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A password that is written and never read (JSON Schema 2020-12, ``writeOnly``)."""
        return {"type": "string", "format": "password", "writeOnly": True}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
