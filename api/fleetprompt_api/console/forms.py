"""Reading what a form sent."""

from urllib.parse import parse_qsl

from starlette.requests import Request

from fleetprompt.errors import InvalidError, MalformedError, UnsupportedMediaTypeError

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 200


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; MalformedError for what none would send, InvalidError for NUL."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaTypeError(f"Send the form as {_FORM}.")
    try:
        pairs = parse_qsl(
            (await request.body()).decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise MalformedError("The form could not be read.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise MalformedError("A field was sent twice.")
    if any("\x00" in value for value in fields.values()):
        raise InvalidError("NUL cannot be stored. Leave it out.")
    # Browsers send line breaks as CR LF whatever was shown (WHATWG HTML §4.10.21.7).
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


def field(fields: dict[str, str], name: str) -> str:
    """A field that every form of the page has."""
    if name not in fields:
        raise MalformedError(f"The form lacks {name!r}.")
    return fields[name]
