"""The admin API, the dashboard and the OpenAPI document, on a listener of their own.

guard
    Who may use the admin listener: the token, and what browsers are kept from.
view
    A row of the live tables as a JSON value.

Imports control, telemetry and everything below. aiohttp; interpreted.

Where to change what: a new call is a handler in ``app``, ``keys`` or ``groups``, its shape in ``schemas``,
``key_schemas``, ``group_schemas`` or ``usage_schemas``, its path in ``openapi``, and its parameters in
``query_parameters``; a page of the dashboard is a file in ``dashboard/``.
"""
