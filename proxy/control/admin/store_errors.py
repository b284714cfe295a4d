"""What the stores of keys and groups refuse, as errors of the admin API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.access.key import KeySettingsError
from proxy.control.key_store import NotStored
from proxy.errors import BadRequest, GatewayError, NotFound
from proxy.storage.group_table import GroupInUse, GroupTaken, UnknownGroup
from proxy.storage.key_table import NameTaken, UnknownKey


@contextmanager
def refusals(code: str) -> Iterator[None]:
    """Translate what a store refuses within.

    :param code: of the error of settings that are not right.
    :raises GatewayError: 404, 409, 422, or 503 where the database fails.
    """
    try:
        yield
    except UnknownKey as error:
        raise NotFound(str(error), "key_not_found") from None
    except UnknownGroup as error:
        raise NotFound(str(error), "group_not_found") from None
    except KeySettingsError as error:
        raise BadRequest(str(error), status=422, code=code) from None
    except NameTaken as error:
        raise BadRequest(str(error), status=409, code="key_name_taken", param="name") from None
    except GroupTaken as error:
        raise BadRequest(str(error), status=409, code="group_name_taken", param="name") from None
    except GroupInUse as error:
        raise BadRequest(str(error), status=409, code="group_in_use", param="name") from None
    except NotStored as error:
        raise storage_failed(str(error)) from None


def storage_failed(text: str) -> GatewayError:
    """The error of a database that can't be read or written."""
    return GatewayError(text, status=503, code="storage_failed")
