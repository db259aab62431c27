"""`/api/providers`: staff configures how money comes in."""

from typing import Annotated

from msgspec import Meta

from ledger.database.transaction import Tx
from ledger.errors import BadRequest
from ledger.providers.actions import activate, change_connection, create_connection, deactivate, shown_value
from ledger.providers.connections import Connections
from ledger.providers.contract import SettingField
from ledger.providers.store import StoredConnection, get_connection, list_connections
from ledger.web.bodies import Body, NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, acts, reads, writes
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
)

Name = Annotated[str, Meta(min_length=1, max_length=100)]
SETTING_MAX = 5_000


class NewProvider(Body, frozen=True, kw_only=True):
    """The kind of provider and the name staff knows it by."""

    missing_sentence = "Type and name are required"

    type: Annotated[str, Meta(min_length=1, max_length=50)]
    name: Name


# A name, and settings by the keys of the provider's type; a masked secret stays as it is.
ProviderChange = dict[str, str]

_COLUMNS = (
    Column(key="name", label="Name"),
    Column(key="type", label="Type"),
    Column(key="status", label="Status"),
)


def _connections(call: Call[NoBody, NoQuery]) -> Connections:
    return call.services.get(Connections)


def _status(stored: StoredConnection) -> str:
    return "Active" if stored.is_active else "Inactive"


@reads("/api/providers", "List the payment providers", callers=STAFF, answer=Table)
async def list_providers(call: Call[NoBody, NoQuery]) -> Table:
    async with call.database.connection() as connection:
        stored = await list_connections(connection)
    rows: list[Row] = [
        {"id": each.id, "name": each.name, "type": each.type, "status": _status(each)} for each in stored
    ]
    return Table(columns=_COLUMNS, rows=rows, total=len(rows))


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
    stored = await create_connection(tx, connections=connections, kind=call.body.type, name=call.body.name)
    return Created(id=stored.id, redirect=f"/{call.services.settings.slug}/providers/{stored.id}")


@reads("/api/providers/{id}", "Show a provider", callers=STAFF, answer=Detail, errors=(404,))
async def show_provider(call: Call[NoBody, NoQuery]) -> Detail:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    settings = connections.open_settings(stored)
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
        ]
    )


@reads("/api/providers/{id}/settings", "A provider's settings as a form", callers=STAFF, answer=Form, errors=(404,))
async def show_provider_settings(call: Call[NoBody, NoQuery]) -> Form:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    settings = connections.open_settings(stored)
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
    name = changes.pop("name", "").strip() or None
    too_long = sorted(key for key, value in changes.items() if len(value) > SETTING_MAX)
    if too_long or (name is not None and len(name) > 100):
        raise BadRequest(f"{', '.join(too_long) or 'name'}: is too long to be right")
    await change_connection(
        tx,
        connections=call.services.get(Connections),
        connection_id=call.id_of("Provider"),
        name=name,
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
    await activate(tx, connections=_connections(call), connection_id=call.id_of("Provider"))
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
    description="Changes nothing, here or there.",
)
async def test_provider(call: Call[NoBody, NoQuery]) -> Message:
    connections = _connections(call)
    async with call.database.connection() as connection:
        stored = await get_connection(connection, connection_id=call.id_of("Provider"))
    if stored.settings_sealed is None:
        raise BadRequest("Fill in the settings of this provider before you test it")
    return Message(message=await connections.connect(stored).provider.test())


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
