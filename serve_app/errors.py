"""The one error tree of the application.

Every error that a client can meet is a subclass of `ServeAppError` and says four things about
itself: the HTTP status, the gRPC status (by name, so that this module needs no gRPC), a stable
machine-readable `code`, and whether repeating the same request can help::

    ServeAppError                     500 INTERNAL
    ├── RequestError                  400 INVALID_ARGUMENT
    │   ├── InvalidInput              400 invalid_input
    │   ├── MalformedRequest          400 malformed_request
    │   ├── RouteNotFound             404 route_not_found
    │   ├── ModelNotFound             404 model_not_found
    │   ├── VersionNotFound           404 version_not_found
    │   ├── RevisionNotFound          404 revision_not_found
    │   ├── MethodNotAllowed          405 method_not_allowed
    │   ├── BodyTimeout               408 body_timeout
    │   ├── Conflict                  409 conflict
    │   ├── RevisionConflict          412 revision_conflict
    │   ├── PayloadTooLarge           413 payload_too_large
    │   ├── UnsupportedMediaType      415 unsupported_media_type
    │   ├── HeadersTooLarge           431 headers_too_large
    │   └── Unimplemented             501 unimplemented
    ├── Unavailable                   503 UNAVAILABLE, with Retry-After
    │   ├── Overloaded                503 overloaded
    │   ├── NotReady                  503 not_ready
    │   ├── ReplicaLost               503 replica_lost
    │   ├── Draining                  503 draining
    │   └── StoreUnavailable          503 store_unavailable
    ├── ClientGone                    499 client_gone (in logs only)
    ├── DeadlineExceeded              504 deadline_exceeded
    ├── ModelFailed                   500 model_failed
    └── OperatorError                 never on the wire: shown by the command line
        └── ConfigError ArtifactError PredictorError ClusterError DeploymentConflict PlanRefused

Rules that keep them alive across processes (Ray pickles them): constructor arguments are
positional and go unformatted to `super().__init__`; the text is made in `__str__`.
"""

from __future__ import annotations

from typing import ClassVar


class ServeAppError(Exception):
    """Base of all our errors; on its own, an internal fault that tells a client nothing."""

    status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    field: str | None = None
    """Which part of the request is at fault, as a path such as ``inputs[0].shape``."""

    retry_after_s: float | None = None
    """How long a client should wait, for errors that pass."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.title


class _AtField(Exception):
    """Says which part of what was asked for is at fault."""

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail, field)
        self.field = field


class RequestError(ServeAppError):
    """The request is at fault; repeating it unchanged cannot help."""

    status = 400
    grpc_status = "INVALID_ARGUMENT"
    code = "bad_request"
    title = "Bad request"


class InvalidInput(_AtField, RequestError):
    """A field of a well-formed request has a value that is not allowed."""

    code = "invalid_input"
    title = "Invalid input"


class MalformedRequest(_AtField, RequestError):
    """The bytes are not what the protocol says they must be (JSON, framing, headers)."""

    code = "malformed_request"
    title = "Malformed request"


class RouteNotFound(RequestError):
    """No such path."""

    status = 404
    grpc_status = "NOT_FOUND"
    code = "route_not_found"
    title = "Not found"


class ModelNotFound(RequestError):
    """No model of this name is served here."""

    status = 404
    grpc_status = "NOT_FOUND"
    code = "model_not_found"
    title = "Model not found"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"model {self.model!r} is not served here"


class VersionNotFound(RequestError):
    """The model exists, the version does not."""

    status = 404
    grpc_status = "NOT_FOUND"
    code = "version_not_found"
    title = "Version not found"

    def __init__(self, model: str, version: str) -> None:
        super().__init__(model, version)
        self.model, self.version = model, version

    def __str__(self) -> str:
        return f"model {self.model!r} has no version {self.version!r}"


class RevisionNotFound(RequestError):
    """The history has no such revision: of a model, or without one of whole deployments."""

    status = 404
    grpc_status = "NOT_FOUND"
    code = "revision_not_found"
    title = "Revision not found"

    def __init__(self, model: str, number: int) -> None:
        super().__init__(model, number)
        self.model, self.number = model, number

    def __str__(self) -> str:
        owner = f"model {self.model!r}" if self.model else "the deployment"
        return f"{owner} has no revision {self.number}"


class MethodNotAllowed(RequestError):
    """The path exists, not with this method."""

    status = 405
    grpc_status = "UNIMPLEMENTED"
    code = "method_not_allowed"
    title = "Method not allowed"

    def __init__(self, detail: str, allow: str = "") -> None:
        super().__init__(detail, allow)
        self.allow = allow


class BodyTimeout(RequestError):
    """The client did not deliver its request in time."""

    status = 408
    grpc_status = "DEADLINE_EXCEEDED"
    code = "body_timeout"
    title = "Request timeout"


class Conflict(RequestError):
    """What is asked for does not fit the state that something is in."""

    status = 409
    grpc_status = "FAILED_PRECONDITION"
    code = "conflict"
    title = "Conflict"


class RevisionConflict(RequestError):
    """Somebody else changed the release first: look at it again, then decide again."""

    status = 412
    grpc_status = "ABORTED"
    code = "revision_conflict"
    title = "Revision conflict"

    def __init__(self, model: str, expected: int, actual: int) -> None:
        super().__init__(model, expected, actual)
        self.model, self.expected, self.actual = model, expected, actual

    def __str__(self) -> str:
        in_force = f"revision {self.actual} is in force" if self.actual else "it has none yet"
        return f"model {self.model!r} was expected at revision {self.expected}, but {in_force}"


class PayloadTooLarge(_AtField, RequestError):
    """Body, message, tensor count or rows above the configured cap."""

    status = 413
    grpc_status = "RESOURCE_EXHAUSTED"
    code = "payload_too_large"
    title = "Payload too large"


class UnsupportedMediaType(RequestError):
    """Content type or content encoding that we do not read."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class HeadersTooLarge(RequestError):
    """Header block too large, or too many headers."""

    status = 431
    grpc_status = "RESOURCE_EXHAUSTED"
    code = "headers_too_large"
    title = "Request header fields too large"


class Unimplemented(_AtField, RequestError):
    """A method, or a way to send it, that this server does not have."""

    status = 501
    grpc_status = "UNIMPLEMENTED"
    code = "unimplemented"
    title = "Not implemented"


class Unavailable(ServeAppError):
    """The service cannot answer now; the same request may succeed after `retry_after_s`."""

    status = 503
    grpc_status = "UNAVAILABLE"
    code = "unavailable"
    title = "Service unavailable"
    retryable = True
    retry_after_s = 1.0


class Overloaded(Unavailable):
    """A bounded queue is full."""

    code = "overloaded"
    title = "Overloaded"


class NotReady(Unavailable):
    """The model or version is known, but no replica of it is ready."""

    code = "not_ready"
    title = "Not ready"


class ReplicaLost(Unavailable):
    """The replica died or could not be reached, and the retry failed as well."""

    code = "replica_lost"
    title = "Replica lost"


class Draining(Unavailable):
    """This ingress is shutting down."""

    code = "draining"
    title = "Shutting down"


class StoreUnavailable(Unavailable):
    """The database cannot be used; what is in force stays in force."""

    code = "store_unavailable"
    title = "Database unavailable"

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """For logs: it names hosts and files, which are no client's business."""

    def __str__(self) -> str:
        return "the database cannot be used now"


class ClientGone(ServeAppError):
    """The client closed the connection before the answer; only ever seen in logs."""

    status = 499
    grpc_status = "CANCELLED"
    code = "client_gone"
    title = "Client closed request"


class DeadlineExceeded(ServeAppError):
    """The deadline of the request passed."""

    status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class ModelFailed(ServeAppError):
    """The model raised, or broke its own signature."""

    code = "model_failed"
    title = "Model failed"


class OperatorError(ServeAppError):
    """An error for the person at the command line, never for a client."""

    code = "operator_error"
    title = "Operation failed"


class ConfigError(_AtField, OperatorError):
    """The composed configuration is wrong; the text names file, key and what is allowed."""

    code = "config_error"
    title = "Configuration error"


class ArtifactError(OperatorError):
    """A model artifact is missing, unreadable, or not the one that was declared."""

    code = "artifact_error"
    title = "Artifact error"


class PredictorError(OperatorError):
    """A predictor could not be built, loaded or warmed up."""

    code = "predictor_error"
    title = "Predictor error"


class ClusterError(OperatorError):
    """Ray or Ray Serve could not do what was asked."""

    code = "cluster_error"
    title = "Cluster error"


class DeploymentConflict(ClusterError):
    """Somebody else is changing the same cluster: they go first, or have won."""

    code = "deployment_conflict"
    title = "Deployment conflict"


class PlanRefused(ClusterError):
    """The plan cannot be carried out on what the cluster runs now."""

    code = "plan_refused"
    title = "Plan refused"
