"""What the API takes and gives, for its checks and its description (OpenAPI)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from geo4d.service.jobs import Job, State


class JobOptions(BaseModel):
    """Settings of a job, in place of those of the service; see ``geo4d reconstruct --help``."""

    model_config = ConfigDict(extra="forbid")

    start: int | None = Field(None, ge=0, le=10**9, description="first frame to use")
    stop: int | None = Field(None, ge=1, le=10**9, description="frame to stop before")
    stride: int | None = Field(None, ge=1, le=10**6, description="use every n-th frame")
    max_size: int | None = Field(None, ge=16, le=8192, description="longest side of the frames, pixels")
    fov_deg: float | None = Field(None, ge=1, le=175, description="known horizontal field of view, degrees")
    output_size: Literal["source", "model"] | None = Field(
        None, description="size of the maps: of the clip (at most 1024) or of the model"
    )
    focal: Literal["auto", "shared", "per_frame"] | None = Field(
        None, description="per_frame: the lens zooms; auto: the tracks tell"
    )
    split_shots: bool | None = Field(None, description="look for cuts")
    motion: bool | None = Field(None, description="use cameras from tracked points")
    allow_partial: bool | None = Field(None, description="go on with the readable frames of a damaged clip")
    seed: int | None = Field(None, ge=0, lt=2**63, description="of all noise")

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return self.model_dump(exclude_none=True)


class ExportOptions(BaseModel):
    """What goes into an export; see ``geo4d export --help``."""

    model_config = ConfigDict(extra="forbid")

    scene: int | None = Field(None, ge=0, le=10**6, description="number of the scene, for clips with cuts")
    up: Literal["camera", "y", "z"] | None = Field(None, description="axes of the world")
    scale: float | None = Field(None, gt=0, le=1e9, description="multiply every length by this")
    min_confidence: float | None = Field(None, ge=0, le=1, description="leave out points below this")
    max_points: int | None = Field(
        None, ge=0, le=50_000_000, description="points of a file that holds all frames"
    )
    first_frame: int | None = Field(
        None, ge=0, le=10**7, description="number of the first frame, such as 1001"
    )

    def given(self) -> dict[str, Any]:
        """Those that were given."""
        return self.model_dump(exclude_none=True)


class JobView(BaseModel):
    """A job, as a client sees it."""

    id: str
    name: str = Field(description="of the clip")
    num_bytes: int = Field(description="of the clip")
    options: dict[str, Any]
    state: State
    place: int | None = Field(description="in the queue, counted from 1; only while it waits")
    created_s: float = Field(description="seconds since 1970, as all times here")
    started_s: float | None
    ended_s: float | None
    removed_s: float | None = Field(description="when the job and its files are removed; only of ended ones")
    stage: str = Field(description="what is being worked on")
    done: int
    total: int
    plan: dict[str, Any] | None = Field(description="what the run does")
    summary: dict[str, Any] | None = Field(description="what the result is like")
    exit_code: int | None = Field(
        description="as 'geo4d reconstruct' would have ended; 9: done, but doubtful"
    )
    reason: str = Field(description="why it failed or is doubtful")
    warnings: list[str]

    @classmethod
    def of(cls, job: Job, place: int | None, keep_s: float) -> "JobView":
        """The view of a job."""
        values = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        removed = None if job.ended_s is None else job.ended_s + keep_s
        return cls(**{**values, "warnings": list(job.warnings)}, place=place, removed_s=removed)


class Jobs(BaseModel):
    """All jobs, the newest first."""

    jobs: list[JobView]


class ExportView(BaseModel):
    """How far an export is."""

    name: str
    state: Literal["working", "ready"]
    num_bytes: int | None = Field(description="of the file, when it is ready")
    file_name: str | None


class ExportFormat(BaseModel):
    """Something that a finished job can be downloaded as."""

    name: str
    holds: str
    suffixes: list[str] = Field(
        description="of the file; empty where only the package of the format knows it"
    )


class Example(BaseModel):
    """A clip that comes with the service."""

    name: str
    title: str
    num_bytes: int


class Limits(BaseModel):
    """What the service takes."""

    max_bytes: int
    max_frames: int
    job_s: float
    keep_s: float
    queue: int


class About(BaseModel):
    """The service."""

    version: str
    model: dict[str, Any] = Field(description="name, description, licence of the weights, device")
    limits: Limits
    fetches: bool = Field(description="takes addresses of clips")
    exports: list[ExportFormat]
    examples: list[Example]


class Health(BaseModel):
    """Whether the service works."""

    status: Literal["ok", "starting", "failing", "ending"]
    workers: int
    ready: int
    busy: int
    queued: int
    reason: str


class Problem(BaseModel):
    """Why a request is not done."""

    detail: str = Field(description="as the command line says it, where it says it")
    exit_code: int | None = Field(description="of the command line for the same failure")


def form_schema() -> dict[str, Any]:
    """The form of a new job, for OpenAPI: the clip, and the options as fields."""
    options = JobOptions.model_json_schema()["properties"]
    fields = {}
    for name, about in options.items():
        kinds = [kind for kind in about["anyOf"] if kind.get("type") != "null"]
        fields[name] = {**kinds[0], "description": about["description"]}
    clip = {
        "file": {"type": "string", "format": "binary", "description": "the clip: a video, or a picture"},
        "example": {"type": "string", "description": "in place of a file: the name of an example"},
        "url": {"type": "string", "description": "in place of a file: where it is, for services that fetch"},
    }
    schema = {"type": "object", "properties": {**clip, **fields}, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
