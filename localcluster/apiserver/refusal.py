"""Refusals: every "no" of the API server as an exception with a Kubernetes Status, one line that names the fault."""

from typing import Any

Object = dict[str, Any]
_CAUSES = {"Required": "Required", "Forbidden:": "Forbidden", "Unsupported": "NotSupported", "Wrong": "TypeInvalid"}
_CAUSES |= {"Too": "TooMany"}


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self._answer = code, {"message": message, "reason": reason, "details": details}

    def status(self) -> Object:
        return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": self.code} | self._answer


def bad_request(message: str) -> Refusal:
    return Refusal(400, "BadRequest", message)


def not_found(resource: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{resource} "{name}" not found', name=name, kind=resource)


def conflict(resource: str, name: str, why: str) -> Refusal:
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return Refusal(409, "Conflict", message, name=name, kind=resource)


def invalid(kind: str, name: str, field: str, why: str) -> Refusal:
    """`why` begins as the real server's: `Required value`, `Forbidden:`, `Unsupported value`, `Too many`, ..."""
    causes = [{"reason": f"FieldValue{_CAUSES.get(why.split()[0], 'Invalid')}", "message": why, "field": field}]
    message = f'{kind} "{name}" is invalid: {field}: {why}'
    return Refusal(422, "Invalid", message, name=name, kind=kind, causes=causes)
