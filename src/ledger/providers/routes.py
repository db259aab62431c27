"""`/api/providers`: staff configures how money comes in."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ledger.database.transaction import Tx
from ledger.errors import BadRequest, FieldError, LedgerError
from ledger.providers.actions import activate, change_connection, create_connection, deactivate, shown_value
from ledger.providers.connections import Connections, SettingsUnreadable
from ledger.providers.contract import SettingField
from ledger.providers.store import StoredConnection, get_connection, list_connections, update_test
from ledger.web.bodies import Body, NoBody, refusal_of
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, acts, reads, writes
from ledger.web.paging import LIST_MAX
from ledger.web.shapes import (
    NOTHING,
    Action,
    Actions,
    Column,
    Created,
    Detail,
    Done,
    Field,
    Form,
    FormField,
    Message,
    Option,
    Row,
    Table,
    iso,
)

NAME_MAX = 100
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
SETTING_MAX = 5_000


class NewProvider(Body, frozen=True, kw_only=True):
    """The kind of provider and the name staff knows it by."""

    missing_sentence = "Type and name are required"

    type: Annotated[str, Meta(min_length=1, max_length=50)]
    name: Name


# A name, and settings by the keys of the provider's type; a masked secret stays as it is.
ProviderChange = dict[str, str]


class ProviderQuery(msgspec.Struct, frozen=True, kw_only=True):
    """There are never more than fit on one page."""

    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = LIST_MAX


_COLUMNS = (
    Column(key="name", label="Name"),
    Column(key="type", label="Type"),
    Column(key="status", label="Status"),
)


def _connections(call: Call[NoBody, NoQuery]) -> Connections:
    return call.services.get(Connections)


def _readable(connections: Connections, stored: StoredConnection) -> dict[str, str]:
    """The settings, or none when they cannot be opened: then they can still be entered anew."""
    try:
        return connections.open_settings(stored)
    except SettingsUnreadable:
        return {}


def _status(stored: StoredConnection) -> str:
    return "Active" if stored.is_active else "Inactive"


@reads("/api/providers", "List the payment providers", callers=STAFF, answer=Table, query=ProviderQuery, errors=(400,))
async def list_providers(call: Call[NoBody, ProviderQuery]) -> Table:
    async with call.database.connection() as connection:
        stored = await list_connections(connection)
    rows: list[Row] = [
        {"id": each.id, "name": each.name, "type": each.type, "status": _status(each)} for each in stored
    ]
    return Table(columns=_COLUMNS, rows=rows[: call.query.limit], total=len(rows))


@reads("/api/providers/form", "The form that adds a provider", callers=STAFF, answer=Form)
async def new_provider_form(call: Call[NoBody, NoQuery]) -> Form:
    options = [Option(label=kind.label, value=kind.name) for kind in _connections(call).registry.all()]
    return Form(
        fields=[
            FormField(key="type", label="Type", type="select", required=True, options=options),
            FormField(
                key="name", label="Display Name", type="text", required=True, placeholder="e.g. Association's account"
            ),
        ]
    )


@writes(
    "POST",
    "/api/providers",
    "Add a payment provider",
    callers=STAFF,
    body=NewProvider,
    answer=Created,
    status=201,
    is_form=True,
    errors=(400, 409, 422),
    description="Its settings are filled in afterwards; then it can be activated.",
)
async def add_provider(call: Call[NewProvider, NoQuery], tx: Tx) -> Created:
    connections = call.services.get(Connections)
    name = call.body.name.strip()
    if not name:
        raise BadRequest("Type and name are required", fields=[FieldError("name", "must not be empty")])
    stored = await create_connection(tx, connections=connections, kind=call.body.type, name=name)
    return Created(id=stored.id, redirect=f"/{call.services.settings.slug}/providers/{stored.id}")


@reads("/api/providers/{id}", "Show a provider", callers=STAFF, answer=Detail, errors=(404,))
async def show_provider(call: Call[NoBody, NoQuery]) -> Detail:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    settings = _readable(connections, stored)
    kind = connections.registry.get(stored.type)
    return Detail(
        fields=[
            Field(key="name", label="Name", value=stored.name),
            Field(key="type", label="Type", value=stored.type),
            Field(key="active", label="Active", type="boolean", value=stored.is_active),
            *(
                Field(
                    key=field.key,
                    label=field.label,
                    type="multiline" if field.kind == "textarea" else None,
                    value=shown_value(field, settings) or NOTHING,
                )
                for field in kind.fields()
            ),
            *_last_test(stored),
        ]
    )


def _last_test(stored: StoredConnection) -> list[Field]:
    """How the last test ended: the button itself can show nothing in the Dashboard."""
    if stored.tested_at is None or stored.test_result is None:
        return []
    return [
        Field(key="testResult", label="Last Test", value=stored.test_result),
        Field(key="testedAt", label="Tested At", type="date", value=iso(stored.tested_at)),
    ]


@reads("/api/providers/{id}/settings", "A provider's settings as a form", callers=STAFF, answer=Form, errors=(404,))
async def show_provider_settings(call: Call[NoBody, NoQuery]) -> Form:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    settings = _readable(connections, stored)
    fields = connections.registry.get(stored.type).fields()
    return Form(
        fields=[
            FormField(key="name", label="Display Name", type="text", required=True, value=stored.name),
            *(_form_field(field, shown_value(field, settings)) for field in fields),
        ]
    )


def _form_field(field: SettingField, value: str | None) -> FormField:
    return FormField(
        key=field.key,
        label=field.label,
        type=field.kind,
        value=value,
        required=field.is_required,
        placeholder=field.placeholder,
        options=[Option(label=label, value=option) for option, label in field.options] or None,
    )


@writes(
    "PUT",
    "/api/providers/{id}",
    "Change a provider's name and settings",
    callers=STAFF,
    body=ProviderChange,
    answer=Done,
    is_form=True,
    errors=(400, 404),
    description="`name`, and the settings by their keys. What is left out, and a masked secret, stay as they are.",
)
async def change_provider(call: Call[ProviderChange, NoQuery], tx: Tx) -> Done:
    changes = dict(call.body)
    name = changes.pop("name", None)
    refused = [
        FieldError(key, f"must be at most {SETTING_MAX} characters; shorten it")
        for key, value in sorted(changes.items())
        if len(value) > SETTING_MAX
    ]
    if name is not None and not 1 <= len(name.strip()) <= NAME_MAX:
        refused.append(FieldError("name", f"must be 1 to {NAME_MAX} characters"))
    if refused:
        raise refusal_of(refused)
    await change_connection(
        tx,
        connections=call.services.get(Connections),
        connection_id=call.id_of("Provider"),
        name=None if name is None else name.strip(),
        changes=changes,
    )
    return Done()


@reads(
    "/api/providers/{id}/actions",
    "List what staff can do with a provider",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_provider_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    at = f"/api/providers/{stored.id}"
    switch = (
        Action(
            label="Deactivate",
            endpoint=f"{at}/deactivate",
            method="POST",
            variant="danger",
            confirm="Deactivate this provider? Nobody can pay online until another one is activated.",
        )
        if stored.is_active
        else Action(
            label="Activate",
            endpoint=f"{at}/activate",
            method="POST",
            confirm="Activate this provider? It takes the place of the one that is active now.",
        )
    )
    test = Action(label="Test connection", endpoint=f"{at}/test", method="POST")
    return Actions(actions=[switch, test] if stored.settings_sealed is not None else [switch])


@writes(
    "POST",
    "/api/providers/{id}/activate",
    "Take payments through this provider from now on",
    callers=STAFF,
    answer=Done,
    errors=(400, 404, 409, 422),
)
async def activate_provider(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await activate(
        tx,
        connections=_connections(call),
        connection_id=call.id_of("Provider"),
        dashboard_url=call.services.settings.dashboard_url,
    )
    return Done()


@writes(
    "POST",
    "/api/providers/{id}/deactivate",
    "Take no more payments through this provider",
    callers=STAFF,
    answer=Done,
    errors=(404, 409, 422),
)
async def deactivate_provider(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await deactivate(tx, connection_id=call.id_of("Provider"))
    return Done()


@acts(
    "POST",
    "/api/providers/{id}/test",
    "Ask the provider whether the settings work",
    callers=STAFF,
    answer=Message,
    errors=(400, 404, 502, 503),
    description="Changes nothing there; how it ended is shown with the provider.",
)
async def test_provider(call: Call[NoBody, NoQuery]) -> Message:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    if stored.settings_sealed is None:
        raise BadRequest("Fill in the settings of this provider before you test it")
    try:
        result = await connections.connect(stored).provider.test()
    except LedgerError as refused:
        await _keep_test(call, stored, refused.sentence)
        raise
    await _keep_test(call, stored, result)
    return Message(message=result)


async def _keep_test(call: Call[NoBody, NoQuery], stored: StoredConnection, result: str) -> None:
    async with call.database.connection() as connection:
        await update_test(connection, connection_id=stored.id, result=result, now=call.services.clock.now())


operations = [
    list_providers,
    new_provider_form,
    add_provider,
    show_provider,
    show_provider_settings,
    change_provider,
    list_provider_actions,
    activate_provider,
    deactivate_provider,
    test_provider,
]
