import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import tomli
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import registry
from drivers.assigned import Code
from drivers.model import Mode
from gateway import schema
from gateway.config.commands import CommandKind
from gateway.config.delivery import Payload
from gateway.config.device import Named
from gateway.config.hub import Hub, topics_of
from gateway.config.kinds import VERIFY_KEY
from gateway.config.load import Config, load
from gateway.config.profile import Profile, Protocol, misfits
from gateway.config.signals import Spo2Curve
from gateway.journal.entry import Stream
from gateway.operator.settings import load_operator
from gateway.receiver.settings import load_receiver
from gateway.tables import ConfigError
from gateway.uplink.patience import Timing, timing_of

CONFIG = Path(__file__).parents[2] / "config"
DRIVERS = registry.all_drivers()

GOOD = """
[hub]
id = "h1"
[broker]
host = "localhost"
[[device]]
id = "strap"
driver = "heart-rate"
address = "c0:00:00:00:00:01"
"""


def check(folder: Path, text: str) -> Config:
    source = folder / "wardlink.toml"
    source.write_text(text, encoding="utf-8")
    return load(source, DRIVERS)


def faults(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(folder, text)
    return {fault.key: f"{fault.got} | {fault.expected}" for fault in caught.value.faults}


def test_example_is_what_it_says() -> None:
    config = load(CONFIG / "wardlink.example.toml", DRIVERS)
    assert config.hub.mode is Mode.DEMO
    assert config.hub.state_dir == CONFIG / "state"
    board = config.devices[1]
    assert board.port == CONFIG / "tty-board"
    assert board.options["lead"] is Code.ECG_ELEC_POTL_II


def test_defaults(tmp_path: Path) -> None:
    config = check(tmp_path, GOOD)
    assert config.hub.mode is Mode.REAL
    assert config.hub.state_dir == Path("/var/lib/wardlink")
    assert config.broker.port == 8883
    assert config.devices[0].subject is None


def test_a_stream_may_have_a_payload_of_its_own(tmp_path: Path) -> None:
    table = '[delivery]\npayload = "cbor"\n[delivery.payloads]\nvitals = "json"\n'
    delivery = check(tmp_path, GOOD + table).delivery
    assert {stream.value: delivery.payload_of(stream).value for stream in Stream} == {
        "alarm": "cbor",
        "vitals": "json",
        "waveform": "cbor",
        "audit": "cbor",
    }
    assert set(map(check(tmp_path, GOOD).delivery.payload_of, Stream)) == {Payload.JSON}
    wrong = GOOD + '[delivery.payloads]\nvitals = "xml"\nwavefrom = "cbor"\n'
    assert faults(tmp_path, wrong) == {
        "delivery.payloads.vitals": 'str \'xml\' | one of "json", "cbor"',
        "delivery.payloads.wavefrom": 'an unknown key | a known key; did you mean "waveform"?',
    }


@pytest.mark.parametrize(
    ("profile", "protocol", "got", "expected"),
    [
        ("nats", "5", "protocol 5", "protocol 3.1.1 (nats)"),
        ("nats", "3.1.1", None, None),
        ("aws-iot-core", "5", None, None),
        ("generic", "5", None, None),
    ],
)
def test_what_a_provider_does_not_take_is_a_fault(
    tmp_path: Path, profile: str, protocol: str, got: str | None, expected: str | None
) -> None:
    text = GOOD.replace(
        'host = "localhost"',
        f'host = "localhost"\nprofile = "{profile}"\nprotocol = "{protocol}"',
    )
    if got is None:
        assert check(tmp_path, text).broker.profile == profile
    else:
        assert faults(tmp_path, text) == {"broker.profile": f"{got} | {expected}"}


def test_names_too_long_for_a_provider_are_a_fault(tmp_path: Path) -> None:
    text = GOOD.replace('id = "h1"', f'id = "{"h" * 64}"\ntenant = "{"t" * 64}"')
    assert check(tmp_path, text).hub.client_id == f"wardlink-{'t' * 64}-{'h' * 64}"
    text = text.replace('host = "localhost"', 'host = "localhost"\nprofile = "aws-iot-core"')
    (fault,) = faults(tmp_path, text).values()
    assert fault.endswith(
        "of 138 bytes | at most 128: shorter names of hub and tenant (aws-iot-core)"
    )


def test_every_topic_is_held_against_the_limits() -> None:
    hub = Hub("h1", "home", Path(), Path())
    topics = list(topics_of(hub, ["r-1"], ["nurse"]))
    assert hub.topic("receipt/r-1") in topics
    assert hub.topic("command/nurse") in topics
    narrow = Profile(topic_slashes=4, topic_bytes=27)
    assert list(misfits(narrow, Protocol.V5, hub.client_id, topics)) == [
        ("topic wardlink/1/home/h1/heartbeat of 28 bytes", "at most 27"),
        ("topic wardlink/1/home/h1/receipt/r-1 of 30 bytes", "at most 27"),
        ("topic wardlink/1/home/h1/receipt/r-1 with 5 slashes", "at most 4"),
        ("topic wardlink/1/home/h1/command/nurse of 32 bytes", "at most 27"),
        ("topic wardlink/1/home/h1/command/nurse with 5 slashes", "at most 4"),
        ("topic wardlink/1/home/h1/response/nurse of 33 bytes", "at most 27"),
        ("topic wardlink/1/home/h1/response/nurse with 5 slashes", "at most 4"),
    ]


def test_every_fault_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [hub]
        id = "has a space"
        mode = "production"
        staet_dir = "/x"
        [broker]
        host = "mqtt.example.org"
        port = 99999
        [journal]
        max_bytes = "lots"
        [[device]]
        id = "a"
        driver = "healthypi-v9"
        [[device]]
        id = "a"
        driver = "ads1292r"
        address = "c0:00:00:00:00:01"
        uv_per_count = -1
        [[device]]
        id = "c"
        driver = "afe4490"
        port = "/dev/ttyUSB0"
        [surplus]
        """,
    )
    assert found == {
        "hub.id": "str 'has a space' | 1 to 64 of A-Z a-z 0-9 . _ -",
        "hub.mode": 'str \'production\' | one of "real", "test", "demo"',
        "hub.staet_dir": 'an unknown key | a known key; did you mean "state_dir"?',
        "broker.port": "int 99999 | a whole number from 1 to 65535",
        "broker.tls": "nothing | a table: mqtt.example.org is not this machine, so only TLS will do",
        "journal.max_bytes": "str 'lots' | a whole number from 33554432 to 17592186044416 bytes",
        "device[0].driver": f"str 'healthypi-v9' | one of {', '.join(sorted(DRIVERS))}",
        "device[1].id": "str 'a' | another than that of device[0]",
        "device[1].address": "an unknown key | a known key; known: desaturation_percent, driver, ecg_limits, id, lead, port, ppg_limits, rate_hz, spo2_curve, subject, uv_per_count",
        "device[1].port": "nothing | a path",
        "device[1].uv_per_count": "int -1 | a number above 0",
        "device[2].rate_hz": "nothing | a number from 1 to 1000",
        "surplus": "an unknown key | a known key; known: broker, commands, delivery, device, hub, journal, link",
    }


def test_one_bluetooth_address_for_two_devices(tmp_path: Path) -> None:
    second = '[[device]]\nid = "b"\ndriver = "heart-rate"\naddress = "C0:00:00:00:00:01"\n'
    assert "device[1].address" in faults(tmp_path, GOOD + second)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.9.9.9"])
def test_loopback_needs_no_tls(tmp_path: Path, host: str) -> None:
    assert check(tmp_path, GOOD.replace("localhost", host)).broker.tls is None


def test_each_node_of_a_broker_needs_tls_unless_it_is_this_machine(tmp_path: Path) -> None:
    def with_hosts(hosts: str) -> str:
        return GOOD.replace('host = "localhost"', f'host = "localhost"\nother_hosts = {hosts}')

    assert check(tmp_path, with_hosts('["127.0.0.2", "::1"]')).broker.other_hosts == (
        "127.0.0.2",
        "::1",
    )
    assert check(tmp_path, GOOD).broker.other_hosts == ()
    assert faults(tmp_path, with_hosts('["127.0.0.2", "b.example.org"]')) == {
        "broker.tls": "nothing | a table: b.example.org is not this machine, so only TLS will do"
    }
    assert set(faults(tmp_path, with_hosts('["localhost"]'))) == {"broker.other_hosts"}
    for wrong in ('["127.0.0.2", "127.0.0.2"]', '"127.0.0.2"', "[7]"):
        assert set(faults(tmp_path, with_hosts(wrong))) == {"broker.other_hosts"}


def test_the_back_off_of_a_fleet_is_set(tmp_path: Path) -> None:
    def with_waits(first: int, most: int) -> str:
        waits = f"backoff_first_s = {first}\nbackoff_most_s = {most}"
        return GOOD.replace('host = "localhost"', f'host = "localhost"\n{waits}')

    timing = timing_of(check(tmp_path, with_waits(200, 600)).broker)
    assert (timing.backoff_first, timing.backoff_most) == (200, 600)
    assert timing_of(check(tmp_path, GOOD).broker) == Timing()
    assert faults(tmp_path, with_waits(200, 100)) == {
        "broker.backoff_first_s": "200 s | at most backoff_most_s, 100 s"
    }


def test_tls_files_must_be_there(tmp_path: Path) -> None:
    text = (
        GOOD + '[broker.tls]\nca_file = "ca.pem"\ncertificate_file = "c.pem"\nkey_file = "k.pem"\n'
    )
    assert set(faults(tmp_path, text)) == {
        "broker.tls.ca_file",
        "broker.tls.certificate_file",
        "broker.tls.key_file",
    }
    for name in ("ca", "c", "k"):
        (tmp_path / f"{name}.pem").touch()
    tls = check(tmp_path, text).broker.tls
    assert tls is not None
    assert tls.ca_file == tmp_path / "ca.pem"


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="readable file"):
        load(tmp_path / "none.toml", DRIVERS)
    (tmp_path / "bad.toml").write_bytes(b"[hub\xff")
    with pytest.raises(ConfigError, match="TOML in UTF-8"):
        load(tmp_path / "bad.toml", DRIVERS)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 62), 1 << 62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), max_size=20),
)
KEYS = st.sampled_from(
    [
        "hub",
        "broker",
        "journal",
        "device",
        "tls",
        "id",
        "driver",
        "host",
        "port",
        "mode",
        "address",
        "rate_hz",
        "x",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=5), max_leaves=25
)


def as_toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_toml_gives_a_configuration_or_faults(
    tmp_path_factory: pytest.TempPathFactory, root: dict[str, object]
) -> None:
    text = "\n".join(f"{key} = {as_toml(value)}" for key, value in root.items())
    tomli.loads(text)
    source = tmp_path_factory.mktemp("any") / "wardlink.toml"
    source.write_text(text, encoding="utf-8")
    for read in (lambda: load(source, DRIVERS), lambda: load_receiver(source)):
        error = None
        try:
            read()
        except ConfigError as caught:
            error = caught
        assert error is None or error.faults


OPERATOR = """
[commands.operators.ward-1]
verify_key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
"""


def test_operators(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD).commands.operators == {}
    assert check(tmp_path, GOOD + OPERATOR).commands.operators["ward-1"].allow == set(CommandKind)
    some = check(tmp_path, GOOD + OPERATOR + 'allow = ["status", "range"]\n').commands.operators
    assert some["ward-1"].allow == {CommandKind.STATUS, CommandKind.RANGE}


def test_device_names_are_known_without_drivers(tmp_path: Path) -> None:
    (tmp_path / "wardlink.toml").write_text(GOOD, encoding="utf-8")
    config = load(tmp_path / "wardlink.toml", None)
    assert (config.devices, config.named) == ((), (Named("strap", "heart-rate"),))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (OPERATOR.replace("Hh8=", "Hh8"), "commands.operators.ward-1.verify_key"),
        (OPERATOR.replace("verify_key", "key"), "commands.operators.ward-1.verify_key"),
        (OPERATOR.replace("ward-1", '"a/b"'), "commands.operators.a/b"),
        (OPERATOR.replace("ward-1", '"+"'), "commands.operators.+"),
        (OPERATOR + "allow = []", "commands.operators.ward-1.allow"),
        (OPERATOR + 'allow = ["shell"]', "commands.operators.ward-1.allow"),
        (OPERATOR + 'allow = ["status", "status"]', "commands.operators.ward-1.allow"),
        (OPERATOR + 'allow = "status"', "commands.operators.ward-1.allow"),
        ("[commands.operators]\nward-1 = 3", "commands.operators.ward-1"),
        ("[commands]\noperators = 3", "commands.operators"),
        ("[commands]\nshell = true", "commands.shell"),
    ],
)
def test_operator_faults(tmp_path: Path, text: str, key: str) -> None:
    found = faults(tmp_path, GOOD + text)
    assert key in found
    form = schema.hub_schema(DRIVERS)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomli.loads(GOOD + text), form)


def test_schemas_are_those_of_the_program() -> None:
    made = {"wardlink": schema.hub_schema(DRIVERS)} | {
        name: make() for name, make in schema.SCHEMAS.items()
    }
    for name, form in made.items():
        stored = json.loads((CONFIG / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert stored == json.loads(json.dumps(form)), (
            f"config/{name}.schema.json is old: make it anew with `wardlink check-config --schema"
            f"{f' --{name}' if name in schema.SCHEMAS else ''}`"
        )


@pytest.mark.parametrize("name", ["wardlink", *schema.SCHEMAS])
def test_schema_accepts_the_example(name: str) -> None:
    form = json.loads((CONFIG / f"{name}.schema.json").read_text(encoding="utf-8"))
    example = tomli.loads((CONFIG / f"{name}.example.toml").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(form)
    jsonschema.validate(example, form)
    example["surplus"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(example, form)


def test_receiver_faults(tmp_path: Path) -> None:
    source = tmp_path / "receiver.toml"
    source.write_text(
        '[receiver]\nid = "r"\n[broker]\nhost = "localhost"\n[hubs]\nh1 = "short"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_receiver(source)
    assert {fault.key for fault in caught.value.faults} == {
        "receiver.state_dir",
        "receiver.output_file",
        "hubs.h1",
    }


def test_an_operators_file_and_a_receivers_both_say_who_asks(tmp_path: Path) -> None:
    asks = load_operator(CONFIG / "operator.example.toml")
    receives = load_operator(CONFIG / "receiver.example.toml")
    assert (asks.id, asks.tenant, list(asks.hubs)) == ("ward-1", "demo", ["demo-hub"])
    assert (receives.id, receives.state_dir) == ("demo-receiver", CONFIG / "receiver")
    source = tmp_path / "operator.toml"
    source.write_text('[operator]\nid = "a/b"\n[broker]\nhost = "localhost"\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_operator(source)
    assert {fault.key for fault in caught.value.faults} == {
        "operator.id",
        "operator.state_dir",
        "hubs",
    }


LOW_ORDER = [
    "00" * 32,
    "00" * 31 + "80",
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "ff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_verify_key_with_which_anybody_could_sign_is_none(tmp_path: Path, key: str) -> None:
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    forged = 0
    for number in range(
        64
    ):  # of any eight messages one or more is signed by (the neutral point, 0)
        with contextlib.suppress(InvalidSignature):
            public.verify(b"\1" + bytes(63), b"%d" % number)
            forged += 1
    assert forged > 0, "what this is about"
    file = tmp_path / "hub.toml"
    shown = base64.b64encode(bytes.fromhex(key)).decode()
    file.write_text(f'{GOOD}[delivery.receivers]\nr-1 = "{shown}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"delivery\.receivers\.r-1"):
        load(file, DRIVERS)


def test_any_honest_verify_key_is_one() -> None:
    for number in range(50):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key()
        text = base64.b64encode(key.public_bytes_raw()).decode()
        assert VERIFY_KEY.parse(text) == text


BOARD = """
[hub]
id = "h"
state_dir = "s"
[broker]
host = "127.0.0.1"
[[device]]
id = "a"
driver = "healthypi-v3"
port = "/dev/ttyUSB0"
"""


def test_facts_about_a_sensor_are_read(tmp_path: Path) -> None:
    config = check(
        tmp_path,
        BOARD
        + """
        ecg_limits = [-32768, 32767]
        ppg_limits = [0, 4194303]
        spo2_curve = { sensor = "maker, model", coefficients = [110, -25.5], ratio = [0.4, 1.8] }
        desaturation_percent = 4
        """,
    )
    (device,) = config.devices
    assert device.desaturation_percent == 4
    assert device.ecg_limits == (-32768, 32767)
    assert device.ppg_limits == (0, 4194303)
    assert device.spo2_curve == Spo2Curve("maker, model", (110.0, -25.5), (0.4, 1.8))


def test_falls_are_looked_for_only_where_it_is_said(tmp_path: Path) -> None:
    (device,) = check(tmp_path, BOARD).devices
    assert device.desaturation_percent is None


@pytest.mark.parametrize(
    "line",
    [
        "ecg_limits = [5, 5]",
        "ecg_limits = [7, 5]",
        "ecg_limits = [1]",
        "ecg_limits = [0, 1.5]",
        "ppg_limits = [false, 5]",
        "ppg_limits = 5",
        'spo2_curve = "linear"',
        'spo2_curve = { sensor = "s", coefficients = [1] }',
        'spo2_curve = { sensor = "s", coefficients = [], ratio = [0.4, 1.8] }',
        'spo2_curve = { sensor = "s", coefficients = [nan], ratio = [0.4, 1.8] }',
        'spo2_curve = { sensor = "s", coefficients = [true], ratio = [0.4, 1.8] }',
        'spo2_curve = { sensor = "s", coefficients = [1], ratio = [1.8, 0.4] }',
        'spo2_curve = { sensor = "s", coefficients = [1], ratio = [0, 0.4] }',
        'spo2_curve = { sensor = "s", coefficients = [1], ratio = [0.1, 0.2, 0.4] }',
        'spo2_curve = { sensor = "", coefficients = [1], ratio = [0.4, 1.8] }',
        "desaturation_percent = 0",
        "desaturation_percent = 21",
        "desaturation_percent = 3.5",
        "desaturation_percent = true",
    ],
)
def test_what_is_no_fact_about_a_sensor_is_refused(tmp_path: Path, line: str) -> None:
    key = line.partition(" ")[0]
    assert list(faults(tmp_path, BOARD + line)) == [f"device[0].{key}"]
