"""The image files of a request: multipart fields named ``file``, or the body itself."""

from starlette.requests import Request

from service.settings import MIB, Settings
from service.web import multipart
from service.web.body import content_type, read_body
from service.web.errors import Invalid, Malformed, TooLarge, WrongType

FIELD = "file"
File = bytes | bytearray | memoryview


def places(files: list[File]) -> int:
    """Places in the queue that ``files`` take: one each, but no fewer than they have MiB."""
    return max(len(files), sum(map(len, files)) // MIB)


async def read_files(request: Request, settings: Settings) -> list[File]:
    """The files, at least one and at most ``max_images``, none of them decoded.

    Raises WrongType, TooLarge, Malformed, Invalid (another field) or ClientGone.
    """
    kind, header = content_type(request)
    raw = kind.startswith("image/") or kind == "application/octet-stream"
    if not raw and kind != "multipart/form-data":
        raise WrongType(
            "Send multipart/form-data with the image in a field named 'file', "
            "or the image itself with its own Content-Type, such as image/png"
        )
    body = await read_body(request, settings.max_upload_bytes)
    if raw:
        return [body]
    parts = multipart.parse(body, header)
    files = [part.content for part in parts if part.name == FIELD]
    if not files:
        raise Malformed("The form has no field named 'file'")
    if len(files) < len(parts):
        raise Invalid(
            "The form has a field that is not known here: all but 'file' goes into the query, as "
            "in ?top_k=3"
        )
    if len(files) > settings.max_images:
        raise TooLarge(f"The form has more than {settings.max_images} images")
    return list(files)
