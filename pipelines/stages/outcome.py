"""Ask the sandbox about one video and say plainly what came of it. Shared by the stages that open media."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.ingest import path_of
from pipelines.stages import MediaCall
from pipelines.video.files import FileFacts, check_unchanged
from pipelines.video.reasons import MediaError, Reason
from pipelines.video.sandbox import Reply


@dataclass(frozen=True)
class Outcome:
    """A reply, or the reason code and message that stand in its place."""

    reply: Reply | None
    reason: Reason | None = None
    message: str | None = None

    @property
    def cause(self) -> dict[str, object]:
        """Columns `reason` and `message` for the row of the video itself."""
        return {"reason": self.reason, "message": self.message}

    @property
    def failure(self) -> dict[str, object]:
        """Columns of table `failures` beside stage and key."""
        return self.cause | {"is_retryable": self.reason is not None and self.reason.is_retryable}


def ask(media: MediaCall, task: str, item: Mapping[str, object], request: Mapping[str, object]) -> Outcome:
    """Run `task` on the video of `item` (video_id, uri, size_bytes, mtime_ns, inode).

    The file must be the one that was hashed, before and after: otherwise what was measured might belong to other bytes.
    """
    path = path_of(str(item["uri"]))
    facts = FileFacts(
        video_id=str(item["video_id"]),
        size_bytes=int(str(item["size_bytes"])),
        mtime_ns=int(str(item["mtime_ns"])),
        inode=int(str(item["inode"])),
    )
    try:
        check_unchanged(path, facts)
        reply = media(task, {"path": str(path), "video_id": facts.video_id} | dict(request))
        check_unchanged(path, facts)
    except MediaError as error:
        return Outcome(None, error.reason, error.message)
    if not reply.is_ok:
        return Outcome(None, reply.reason or Reason.INTERNAL_ERROR, reply.message)
    return Outcome(reply)
