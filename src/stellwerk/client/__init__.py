"""A client of a gateway for Python programs: typed answers, streams, jobs and documents.

    from stellwerk.client import Client

    client = Client("http://127.0.0.1:4000", "sk-…")
    print(client.chat("Hello", "stellwerk-demo").text)

It needs nothing of the gateway's server and imports none of it.
"""

from stellwerk.client.async_client import AsyncClient
from stellwerk.client.async_job_access import AsyncJobHandle
from stellwerk.client.client import Client
from stellwerk.client.errors import (
    BadAddress,
    BadRequest,
    BrokenOff,
    Conflict,
    Forbidden,
    InsufficientCredit,
    JobFailed,
    NotFound,
    NotUnderstood,
    RateLimited,
    Refused,
    StellwerkError,
    StillRunning,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from stellwerk.client.job_access import JobHandle
from stellwerk.client.jobs import Job, JobEvent, JobPage, JobResult, Progress, Queue
from stellwerk.client.ocr import Box, Page, Reading
from stellwerk.client.retries import Retries
from stellwerk.client.shapes import Batch, Chat, ChatPiece, Embeddings, File, Model, Ranking, Usage

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BadAddress",
    "BadRequest",
    "Batch",
    "Box",
    "BrokenOff",
    "Chat",
    "ChatPiece",
    "Client",
    "Conflict",
    "Embeddings",
    "File",
    "Forbidden",
    "InsufficientCredit",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobHandle",
    "JobPage",
    "JobResult",
    "Model",
    "NotFound",
    "NotUnderstood",
    "Page",
    "Progress",
    "Queue",
    "Ranking",
    "RateLimited",
    "Reading",
    "Refused",
    "Retries",
    "StellwerkError",
    "StillRunning",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "Usage",
]
