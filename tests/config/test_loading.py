from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from poller.config import (
    AccountKeys,
    BudgetSettings,
    Config,
    EgressSettings,
    ExchangeSettings,
    LoggingSettings,
    MetricsSettings,
    OutboxSettings,
    Place,
    SecretSetting,
    ShutdownSettings,
    load,
)
from poller.delivery import DeliverySettings
from poller.errors import ConfigError
from poller.model import Account
from poller.secrets import SecretReference
from poller.server.settings import ServerSettings

Loaded = Callable[..., Config]
Problems = Callable[..., list[str]]

A = "accounts: {a: {api_key: env:A_KEY, secret: env:A_SECRET}}\n"
KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
LITERAL = (
    "not a secret reference; write env:NAME, file:PATH, credential:NAME, keyring:SERVICE/USER, "
    "vault:PATH#FIELD or exec:COMMAND, and keep the secret there"
)


# ---- what is right


def test_the_least_configuration_has_every_default(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(A)
    place = Place("accounts.yaml", 1)

    def kept(key: str, name: str) -> SecretSetting:
        return SecretSetting(SecretReference("env", name), tmp_path, f"accounts.a.{key}", place)

    assert config == Config(
        path=Path("accounts.yaml"),
        directory=tmp_path,
        exchange=ExchangeSettings("https://api.binance.com", 10_000, 5.0, 15.0, 600.0),
        budget=BudgetSettings(12_000, 0.9, 60.0),
        egress={"default": EgressSettings()},
        accounts={"a": Account("a", 60.0, 0, "default", {}, None, True, 180.0)},
        keys={"a": AccountKeys(kept("api_key", "A_KEY"), kept("secret", "A_SECRET"))},
        sinks={},
        outbox=OutboxSettings(tmp_path / "data/outbox.db", 86_400.0, 1024**3, "block"),
        shutdown=ShutdownSettings(20.0),
        logging=LoggingSettings("info", "auto"),
        places=config.places,
    )


def test_what_is_written_arrives_in_the_units_of_the_components(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(
        """
        exchange: {base_url: "http://127.0.0.1:8080/", recv_window: 2500ms, connect_timeout: 1s, timeout: 2s, time_sync: 1h}
        budget: {weight_limit: 600, share: 50%, window: 5s}
        outbox: {path: /var/lib/outbox.db, retain: 0s, max_size: 10MB, when_full: block}
        metrics: {balances: true, max_series: 100}
        tracing: {endpoint: "https://otlp.example:4318/otlp/", headers: file:otlp.txt, sample: 50%}
        shutdown: {drain: 500ms}
        logging: {level: debug, format: json}
        egress:
          nat: {local_address: "2001:DB8::2"}
          away: {proxy: file:proxy.url}
        accounts: {a: {api_key: file:k, private_key: file:p, passphrase: env:P}}
        """
    )
    assert config.exchange == ExchangeSettings("http://127.0.0.1:8080", 2_500, 1.0, 2.0, 3600.0)
    assert config.budget == BudgetSettings(600, 0.5, 5.0)
    assert config.outbox == OutboxSettings(Path("/var/lib/outbox.db"), 0.0, 10_000_000, "block")
    assert config.shutdown == ShutdownSettings(0.5)
    assert config.metrics == MetricsSettings(balances=True, max_series=100)
    assert config.tracing is not None
    assert (config.tracing.endpoint, config.tracing.sample) == ("https://otlp.example:4318/otlp", 0.5)
    assert config.tracing.headers is not None
    assert config.tracing.headers.key == "tracing.headers"
    assert config.logging == LoggingSettings("debug", "json")
    proxy = SecretSetting(
        SecretReference("file", "proxy.url"), tmp_path, "egress.away.proxy", Place("accounts.yaml", 11)
    )
    assert config.egress == {
        "default": EgressSettings(),
        "nat": EgressSettings(local_address="2001:db8::2"),
        "away": EgressSettings(proxy=proxy),
    }
    keys = config.keys["a"]
    assert keys.secret is None
    assert keys.private_key is not None
    assert keys.passphrase is not None
    assert [str(key.reference) for key in (keys.api_key, keys.private_key, keys.passphrase)] == [
        "file:k",
        "file:p",
        "env:P",
    ]


def test_an_account_has_its_own_settings_before_the_defaults_and_labels_of_both(loaded: Loaded) -> None:
    config = loaded(
        """
        defaults: {interval: 30s, priority: 3, egress: nat, asset: BTC, btc_valuation: false, labels: {desk: mm, region: eu}, stale_after: 5}
        egress: {nat: {local_address: 10.0.0.2}}
        accounts:
          plain: {api_key: env:A, secret: env:B}
          own: {api_key: env:C, secret: env:D, interval: 1500ms, priority: 9, egress: default, asset: , btc_valuation: yes,
                labels: {region: us, book: "7"}, stale_after: 2}
        """
    )
    assert config.accounts == {
        "plain": Account(
            "plain",
            30.0,
            priority=3,
            egress="nat",
            labels={"desk": "mm", "region": "eu"},
            asset="BTC",
            btc_valuation=False,
            stale_after_s=150.0,
        ),
        "own": Account(
            "own",
            1.5,
            priority=9,
            egress="default",
            labels={"desk": "mm", "region": "us", "book": "7"},
            asset=None,
            btc_valuation=True,
            stale_after_s=3.0,
        ),
    }


def test_included_files_add_accounts_with_defaults_of_their_own(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(
        "defaults: {interval: 30s, priority: 1}\ninclude: [fleet.d/*.yaml, fleet.d/a.yaml, more.yaml]\n" + A,
        **{
            "fleet.d/b.yaml": "accounts:\n  b: {api_key: file:b.key, secret: file:/abs}",
            "fleet.d/a.yaml": "defaults: {interval: 10s}\naccounts:\n  c: {api_key: env:A, secret: env:B, priority: 2}",
            "fleet.d/.hidden.yaml": "not: [read",
            "more.yaml": "accounts:\n",
        },
    )
    assert [(a.name, a.interval_s, a.priority) for a in config.accounts.values()] == [
        ("a", 30.0, 1),
        ("c", 10.0, 2),
        ("b", 30.0, 1),
    ]
    # A path is relative to the file that names it.
    assert config.keys["b"].api_key.directory == tmp_path / "fleet.d"
    assert config.keys["b"].api_key.place == Place("fleet.d/b.yaml", 2)
    assert config.place("accounts.c") == Place("fleet.d/a.yaml", 3)


def test_an_included_file_may_be_named_absolutely(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(f"include: [{tmp_path}/x/*.yaml]", **{"x/f.yaml": A})
    assert list(config.accounts) == ["a"]


def test_a_configuration_elsewhere_is_named_as_the_operator_named_it(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded("include: [f.yaml]", **{"f.yaml": A})
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    config = load("../accounts.yaml")
    assert config.place("accounts.a") == Place("../f.yaml", 1)
    (tmp_path / "f.yaml").write_text("accounts: [")
    with pytest.raises(ConfigError, match=r"^\.\./f\.yaml:2: not valid YAML: "):
        load("../accounts.yaml")


def test_every_key_has_its_place_and_what_was_left_out_that_of_its_section(loaded: Loaded) -> None:
    config = loaded(A + "outbox:\n  path: x.db\nsinks:\n  s:\n    kind: probe\n    path: y\n")
    assert {key: config.place(key).line for key in ("outbox", "outbox.path", "outbox.retain")} == {
        "outbox": 2,
        "outbox.path": 3,
        "outbox.retain": 2,
    }
    assert config.place("sinks.s.kind").line == 6
    assert config.place("accounts.a.interval").line == 1
    assert str(config.place("accounts.a.interval")) == "accounts.yaml:1"
    assert str(config.place("shutdown.drain")) == "accounts.yaml"


@pytest.mark.parametrize(
    ("written", "policy"),
    [("warn", "warn"), ("require_read_only", "require_read_only"), ("off", "off"), ('"off"', "off")],
)
def test_what_follows_from_what_keys_may_do_is_one_of_three(
    written: str, policy: str, loaded: Loaded
) -> None:
    assert loaded(f"key_policy: {written}\n{A}").key_policy == policy


def test_a_policy_that_is_none_is_refused_with_the_three_that_are(problems: Problems) -> None:
    [problem] = problems(f"key_policy: strict\n{A}")
    assert problem.startswith("accounts.yaml:1: key_policy: ")
    assert all(policy in problem for policy in ("strict", "warn", "require_read_only", "off"))


def test_an_address_can_be_shared_with_other_pollers(loaded: Loaded) -> None:
    config = loaded(f"egress: {{default: {{shared: true}}, nat: {{local_address: 10.0.0.2}}}}\n{A}")
    assert {name: egress.shared for name, egress in config.egress.items()} == {"default": True, "nat": False}


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ("{}", ServerSettings("127.0.0.1", 8080)),
        ("{listen: 127.0.0.1:9000}", ServerSettings("127.0.0.1", 9000)),
        ('{listen: "[::1]:8080"}', ServerSettings("::1", 8080)),
        ("{listen: 0.0.0.0:80, token: env:T}", ServerSettings("0.0.0.0", 80)),
        (
            "{hosts: [Poller.Example.net, 'a.example:8443', '[::5]:1', localhost]}",
            ServerSettings(hosts=("poller.example.net", "a.example:8443", "[::5]:1", "localhost")),
        ),
    ],
)
def test_a_server_listens_on_this_machine_unless_it_says_otherwise(
    section: str, settings: ServerSettings, loaded: Loaded
) -> None:
    assert loaded(f"{A}server: {section}").server == settings


def test_the_server_names_its_token_and_without_the_section_there_is_no_server(
    loaded: Loaded, tmp_path: Path
) -> None:
    config = loaded(f"server:\n  token: file:token\n{A}")
    place = Place("accounts.yaml", 2)
    assert config.server_token == SecretSetting(
        SecretReference("file", "token"), tmp_path, "server.token", place
    )
    for text in (A, f"{A}server:\n"):
        config = loaded(text)
        assert (config.server, config.server_token) == (None, None)


def test_empty_sections_are_as_good_as_none(loaded: Loaded) -> None:
    config = loaded(
        A
        + "exchange:\nbudget:\negress:\n  default:\ndefaults:\ninclude:\nsinks:\noutbox:\nserver:\nmetrics:\nshutdown:\nlogging:\n"
    )
    assert config.exchange == ExchangeSettings()
    assert config.egress == {"default": EgressSettings()}


def test_a_byte_order_mark_is_no_part_of_the_file(loaded: Loaded) -> None:
    assert list(loaded("\ufeff" + A).accounts) == ["a"]


def test_the_representation_of_a_configuration_shows_where_secrets_are_and_none_of_them(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", KEY)
    shown = repr(loaded(A))
    assert "A_KEY" in shown
    assert KEY not in shown


# ---- what is wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # keys
        ("acounts: {}", "1: acounts: unknown key 'acounts', did you mean 'accounts'?"),
        ("listen: {listen: 1}", ("1: listen: unknown key 'listen'; known here: accounts, budget, defaults, discover, egress,"
         " exchange, include, key_policy, logging, metrics, outbox, reload, server, shutdown, sinks, tracing")),
        ("exchange: {recv_windw: 10s}", "1: exchange.recv_windw: unknown key 'recv_windw', did you mean 'recv_window'?"),
        ("metrics: {max_series: 0}",
         "1: metrics.max_series: 0 does not fit; write a number greater than or equal to 1"),
        ("tracing: {sample: 1%}", "1: tracing.endpoint: is required and missing; add it"),
        ("tracing: {endpoint: 'http://collector:4318'}",
         ("1: tracing.endpoint: 'http://collector:4318' would send names of accounts in the clear;"
         " write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)")),
        ("tracing: {endpoint: 'https://user:s3cr3t@collector'}",
         ("1: tracing.endpoint: an URL with a user in it is not the address of a collector;"
         " write https://HOST:PORT, with a path if need be")),
        ("tracing: {endpoint: 'https://collector', sample: 0.001%}",
         "1: tracing.sample: '0.001%' is out of range; write 0.01% to 100%"),
        ("tracing: {endpoint: 'https://collector', headers: 'authorization=s3cr3t'}", f"1: tracing.headers: {LITERAL}"),
        ("shutdown: {x: 1}", "1: shutdown.x: unknown key 'x'; known here: drain"),
        ("shutdown:\n  drain: 1s\n  drain: 2s", "3: shutdown.drain: this key stands on line 2 already; remove one of the two"),
        ("shutdown: {drain:5s}", "1: shutdown.?: unknown key 'drain:...'; write a space after the colon"),
        ("shutdown: {drain: }", "1: shutdown.drain: has no value; write one, or remove the line"),
        ("shutdown: 5s", "1: shutdown: a text where a mapping belongs; write it as 'key: value' lines"),
        ("shutdown: [5s]", "1: shutdown: a list where a mapping belongs; write it as 'key: value' lines"),
        ("shutdown: *x", "1: shutdown: aliases (*name) are not supported; write the value out"),
        ("shutdown: {drain: *x}", "1: shutdown.drain: aliases (*name) are not supported; write the value out"),
        ("shutdown: {drain: !x 5s}", "1: shutdown.drain: tags (!name) are not supported; remove it, or quote a text that begins so"),
        # durations, sizes, shares
        ("shutdown: {drain: 10}", "1: shutdown.drain: 10 is not a duration; write 10s"),
        ("shutdown: {drain: 1:30}", "1: shutdown.drain: YAML takes 1:30 for a number; write it like 10s (understood: 500ms, 10s, 5m, 1h, 7d)"),
        ("shutdown: {drain: 2h}", "1: shutdown.drain: '2h' is out of range; write 0s to 1h"),
        ("outbox: {max_size: 1024}", "1: outbox.max_size: 1024 is not a size; write 1024B"),
        ("outbox: {max_size: 1KiB}", "1: outbox.max_size: '1KiB' is out of range; write 1MiB to 1000GiB"),
        ("budget: {share: 0.9}", "1: budget.share: 0.9 is not a share; write 0.9%"),
        ("budget: {share: 101%}", "1: budget.share: '101%' is out of range; write 1% to 100%"),
        ("budget: {share: 0.5%}", "1: budget.share: '0.5%' is out of range; write 1% to 100%"),
        # other values
        ("budget: {weight_limit: 0}", "1: budget.weight_limit: 0 does not fit; write a number greater than or equal to 1"),
        ("budget: {weight_limit: '12000'}", "1: budget.weight_limit: 12000 does not fit; write a whole number"),
        ("budget: {weight_limit: 012000}", "1: budget.weight_limit: 012000 does not fit; write a whole number"),
        ("budget: {weight_limit: true}", "1: budget.weight_limit: true does not fit; write a whole number"),
        ("budget: {weight_limit: [1]}", "1: budget.weight_limit: a list does not fit; write a whole number"),
        (f"budget: {{weight_limit: {KEY}}}", "1: budget.weight_limit: ... does not fit; write a whole number"),
        ("budget: {weight_limit: 4, share: 100%}",
         "1: budget: 100% of a weight of 4 is less than one poll costs, 5; write a greater weight_limit or share"),
        ("budget: {window: 30s}", ("1: budget.window: '30s' is shorter than the exchange's own minute;"
         " remove the line; a shorter window is for a simulator on this machine")),
        ("logging: {level: warn}", "1: logging.level: warn does not fit; write 'debug', 'info', 'warning' or 'error'"),
        ("logging: {format: yes}", "1: logging.format: yes does not fit; write 'auto', 'text' or 'json'"),
        ("outbox: {when_full: drop}", "1: outbox.when_full: drop does not fit; write 'block', 'drop_oldest' or 'conflate'"),
        ("outbox: {path: ''}", "1: outbox.path: '' is not a path; write one, relative to this file or absolute"),
        ("outbox: {path: 5}", "1: outbox.path: YAML takes 5 for a number; put it into quotes"),
        # the exchange
        ("exchange: {base_url: http://api.binance.com}",
         ("1: exchange.base_url: 'http://api.binance.com' would send keys and balances in the clear;"
         " write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)")),
        ("exchange: {base_url: http://localhost.example.com}",
         ("1: exchange.base_url: 'http://localhost.example.com' would send keys and balances in the clear;"
         " write https://; plain http is for this machine only (127.0.0.1, ::1, localhost)")),
        ("exchange: {base_url: https://u:p@host}",
         "1: exchange.base_url: an URL with a user in it is not the address of an exchange; write https://HOST or https://HOST:PORT"),
        *[(f"exchange: {{base_url: '{url}'}}",
           f"1: exchange.base_url: '{url}' is not the address of an exchange; write https://HOST or https://HOST:PORT")
          for url in ("api.binance.com", "ftp://host", "https://", "https://host/path", "https://host?x=1", "https://host#x",
                      "https://host:70000", "https://host:x", "https://a b", "https://[::1", "HTTPS://host", "")],
        ("exchange: {timeout: 11s}", "1: exchange.timeout: '11s' is too short: the exchange itself may take 10s; write at least 12s"),
        ("exchange: {connect_timeout: 15s}", ("1: exchange.connect_timeout: 'connect_timeout' is not shorter than 'timeout',"
         " which holds it; make it shorter")),
        ("exchange: {recv_window: 61s}", "1: exchange.recv_window: '61s' is out of range; write 1s to 60s"),
        ("exchange: {recv_window: 500ms}", "1: exchange.recv_window: '500ms' is out of range; write 1s to 60s"),
        # egress
        ("egress: {a b: {local_address: 10.0.0.2}}", "1: egress.?: 'a b' cannot name an egress; use 1 to 64 letters, digits, '_' and '-'"),
        ("egress: {nat: {local_address: nat.example}}",
         "1: egress.nat.local_address: 'nat.example' is not an IP address; write one of this machine's own"),
        ("egress: {nat: {proxy: 'http://user:pass@host:1'}}", f"1: egress.nat.proxy: {LITERAL}"),
        ("egress: {nat: {proxy: }}", "1: egress.nat.proxy: has no value; write one, or remove the line"),
        ("egress: {nat: {proxy: env:P, local_address: 10.0.0.2}}",
         "1: egress.nat: 'local_address' and 'proxy' are both given; keep one: the proxy has its own address"),
        ("egress: {nat: {}}", ("1: egress.nat: leaves from the same address as 'default': its weight would be spent twice;"
         " give it a local_address or proxy of its own, or remove it")),
        ("egress:\n  x: {local_address: '::1'}\n  y: {local_address: '0:0::1'}",
         ("3: egress.y: leaves from the same address as 'x': its weight would be spent twice;"
         " give it a local_address or proxy of its own, or remove it")),
        ("egress:\n  x: {proxy: env:P}\n  y: {proxy: env:P}",
         ("3: egress.y: leaves from the same address as 'x': its weight would be spent twice;"
         " give it a local_address or proxy of its own, or remove it")),
        # defaults
        ("defaults: {interval: 60}", "1: defaults.interval: 60 is not a duration; write 60s"),
        ("defaults: {interval: 10ms}", "1: defaults.interval: '10ms' is out of range; write 100ms to 7d"),
        ("defaults: {priority: 10}", "1: defaults.priority: 10 does not fit; write a number less than or equal to 9"),
        ("defaults: {egress: defualt}", "1: defaults.egress: there is no egress 'defualt'; did you mean 'default'? known here: default"),
        ("defaults: {api_key: env:X}", ("1: defaults.api_key: unknown key 'api_key'; known here: asset, btc_valuation, egress, interval,"
         " labels, priority, stale_after")),
        ("defaults: {btc_valuation: 1}", "1: defaults.btc_valuation: 1 does not fit; write true or false"),
        ("defaults: {stale_after: 3m}", "1: defaults.stale_after: 3m does not fit; write a whole number"),
        ("defaults: {asset: 'B TC'}", "1: defaults.asset: 'B TC' is not an asset; write its code, such as BTC"),
        ("defaults: {asset: 007}", "1: defaults.asset: YAML takes 007 for a number; put it into quotes"),
        ("defaults: {labels: [a]}", "1: defaults.labels: a list does not fit; write a mapping, such as {a: b}"),
        ("defaults:\n  labels:\n    since: 2026-01-01", "3: defaults.labels.since: YAML takes 2026-01-01 for a date; put it into quotes"),
        ("defaults: {labels: {live: on}}", "1: defaults.labels.live: YAML takes on for true; put it into quotes"),
        ("defaults: {labels: {a: }}", "1: defaults.labels.a: nothing does not fit; write a text"),
        ("defaults: {labels: {'a b': x}}", "1: defaults.labels.?: 'a b' cannot name a label; use 1 to 64 letters, digits, '_' and '-'"),
        ('defaults: {labels: {a: "x\\ty"}}', ("1: defaults.labels.a: 'x\\ty' cannot be a label;"
         " write at most 128 characters, none of them a control character")),
        (f"defaults: {{egress: {KEY}}}", "1: defaults.egress: there is no egress '...'; known here: default"),
        (f"outbox: {{when_full: x{KEY}}}", "1: outbox.when_full: ... does not fit; write 'block', 'drop_oldest' or 'conflate'"),
        # server
        ("server: {listen: 8080}", "1: server.listen: YAML takes 8080 for a number; put it into quotes"),
        *(
            (f"server: {{listen: '{wrong}'}}", (f"1: server.listen: '{wrong}' is not an IP address with a port;"
             ' write one of this machine\'s, such as 127.0.0.1:8080 or "[::1]:8080"'))
            for wrong in ("localhost:8080", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "1.2.3:80", "[::g]:80",
                          "::1:8080", "http://127.0.0.1:8080", "")
        ),
        ("server: {listen: 0.0.0.0:8080}", ("1: server.listen: '0.0.0.0:8080' can be reached from other machines,"
         " and there is no 'token'; add token: env:NAME, or listen on 127.0.0.1")),
        (f"server: {{token: {KEY}}}", f"1: server.token: {LITERAL}"),
        *(
            (f"server: {{hosts: ['{wrong}']}}", (f"1: server.hosts[0]: '{wrong}' is not the name of a host;"
             " write it as browsers show it, such as poller.example.net or poller.example.net:8443"))
            for wrong in ("https://a.example", "a.example/", "*.example", "a b", "a.example:99999", "-a", "")
        ),
        ("server: {hosts: a.example}", "1: server.hosts: a.example does not fit; write a list, such as [a, b]"),
        ("server: {port: 8080}", "1: server.port: unknown key 'port'; known here: hosts, listen, token"),
        # include
        ("include: fleet.d/*.yaml", "1: include: this is no list; write it as [fleet.d/*.yaml]"),
        ("include: [7]", "1: include[0]: this is no path; write one such as fleet.d/*.yaml"),
        ("include:\n- none.d/*.yaml", "2: include[0]: 'none.d/*.yaml' matches no file; create one, or remove the line"),
        ("include: ['*.yaml']", "1: include[0]: '*.yaml' matches this file itself; keep included files elsewhere"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_place_and_remedy(text: str, expected: str, problems: Problems) -> None:
    assert problems(f"{text}\n{A}") == [f"accounts.yaml:{expected}"]


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("{}", ["'api_key' is missing; add api_key: env:NAME or file:PATH",
                ("neither 'secret' nor 'private_key' is given;"
                " add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)")]),
        ("", ["'api_key' is missing; add api_key: env:NAME or file:PATH",
              ("neither 'secret' nor 'private_key' is given;"
              " add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)")]),
        (f"{KEY}", ["a text where a mapping belongs; write it as 'key: value' lines"]),
        (f"api_key:{KEY}", ["a text where a mapping belongs; write it as 'key: value' lines"]),
    ],
)  # fmt: skip
def test_an_account_without_keys_is_refused(account: str, expected: list[str], problems: Problems) -> None:
    assert problems(f"accounts:\n  a: {account}") == [
        f"accounts.yaml:2: accounts.a: {text}" for text in expected
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("api_key: env:A", (": neither 'secret' nor 'private_key' is given;"
         " add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)")),
        ("secret: env:A", ": 'api_key' is missing; add api_key: env:NAME or file:PATH"),
        ("api_key: env:A, secret: env:B, private_key: file:C",
         ".private_key: 'secret' and 'private_key' are both given; keep the one that belongs to the API key"),
        ("api_key: env:A, secret: env:B, passphrase: env:C", ".passphrase: a passphrase without 'private_key'; remove it"),
        (f"api_key: {KEY}, secret: env:B", f".api_key: {LITERAL}"),
        (f"api_key: env:A, secret: {KEY}", f".secret: {LITERAL}"),
        ("api_key: env:A, secret: 12345678", f".secret: {LITERAL}"),
        ("api_key: env:A, secret: 0123", f".secret: {LITERAL}"),
        ("api_key: env:A, secret: [s3cr3t]", f".secret: {LITERAL}"),
        ("api_key: env:A, secret: {s3cr3t: }", f".secret: {LITERAL}"),
        ("api_key: env:A, secret: s3cr3t:x", f".secret: {LITERAL}"),
        (f"api_key: env:A, secret: env:{KEY}", ".secret: what follows env: looks like the secret itself; write env:NAME"),
        ('api_key: env:A, private_key: "-----BEGIN PRIVATE KEY-----\\nMC4"', f".private_key: {LITERAL}"),
        ("api_key: env:A, private_key: file:x, passphrase: s3cr3t", f".passphrase: {LITERAL}"),
        ("api_key: env:A, secret: ", ".secret: has no value; write one, or remove the line"),
        ("api_key: env:A, secret: env:B, egress: xyz", ".egress: there is no egress 'xyz'; known here: default, nat-b"),
        ("api_key: env:A, secret: env:B, egress: natb",
         ".egress: there is no egress 'natb'; did you mean 'nat-b'? known here: default, nat-b"),
        ("api_key: env:A, secret: env:B, intervall: 5s", ".intervall: unknown key 'intervall', did you mean 'interval'?"),
    ],
)  # fmt: skip
def test_keys_of_an_account_are_refused_without_being_shown(
    keys: str, expected: str, problems: Problems
) -> None:
    egress = "egress: {nat-b: {local_address: 10.0.0.2}}\n"
    found = problems(f"{egress}accounts:\n  a: {{{keys}}}")
    assert found == [f"accounts.yaml:3: accounts.a{expected}"]
    assert KEY not in found[0]
    assert "s3cr3t" not in found[0]


def test_names_of_accounts_are_checked(problems: Problems) -> None:
    keys = "{api_key: env:A, secret: env:B}"
    rule = "use 1 to 64 letters, digits, '_' and '-'"
    assert problems(
        f"accounts:\n  a.b: {keys}\n  'a b': {keys}\n  {'x' * 65}: {keys}\n  007: {keys}\n  '': {keys}"
    ) == [
        f"accounts.yaml:2: accounts.?: 'a.b' cannot name an account; {rule}",
        f"accounts.yaml:3: accounts.?: 'a b' cannot name an account; {rule}",
        f"accounts.yaml:4: accounts.?: '...' cannot name an account; {rule}",
        "accounts.yaml:5: accounts.007: YAML takes this key for a number; put it into quotes",
        f"accounts.yaml:6: accounts.?: '' cannot name an account; {rule}",
    ]


@pytest.mark.parametrize(
    "text", ["", "accounts:", "accounts: {}", "include: [f.yaml]", "# nothing", "shutdown: {drain: 1s}"]
)
def test_a_configuration_without_accounts_is_refused(text: str, problems: Problems) -> None:
    found = problems(text, **{"f.yaml": "accounts: {}"})
    assert found == ["accounts.yaml:1: accounts: there is no account; add one, or include a file of them"]


@pytest.mark.parametrize(("text", "what"), [("[]", "a list"), ("abc", "a text"), ("7", "a number")])
def test_a_file_that_is_no_mapping_is_refused(text: str, what: str, problems: Problems) -> None:
    assert problems(text) == [
        f"accounts.yaml:1: {what} where a mapping belongs; write it as 'key: value' lines"
    ]


def test_accounts_that_are_no_mapping_are_refused(problems: Problems) -> None:
    assert problems("accounts: [a, b]")[0] == (
        "accounts.yaml:1: accounts: a list where a mapping belongs; write it as 'key: value' lines"
    )


def test_a_file_that_cannot_be_read_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"
    write("").write_bytes(b"a: 1\nb: \xff")
    with pytest.raises(ConfigError) as caught:
        load("accounts.yaml")
    assert str(caught.value) == "accounts.yaml:2: not UTF-8 text; save the file as UTF-8"


def test_an_account_in_two_files_is_refused_with_both_places(problems: Problems) -> None:
    found = problems(
        "\n" + A + "include: [f.d/*]",
        **{
            "f.d/1.yaml": A,
            "f.d/2.yaml": "accounts:\n  b: {api_key: env:A, secret: env:B}",
            "f.d/3.yaml": "accounts:\n  b: {}",
        },
    )
    assert found == [
        "f.d/1.yaml:1: accounts.a: this account stands in accounts.yaml:2 already; remove one of the two",
        "f.d/3.yaml:2: accounts.b: this account stands in f.d/2.yaml:2 already; remove one of the two",
    ]


def test_an_included_file_holds_accounts_and_their_defaults_and_nothing_else(problems: Problems) -> None:
    found = problems(
        f"{A}include: [f.yaml, g.yaml, sub]",
        **{
            "f.yaml": "include: [g.yaml]\noutbox: {}\nacounts: {}\nmetrics: {}\ndefaults: {egress: x}",
            "g.yaml": "- 1",
            "sub/x": "",
        },
    )
    assert found == [
        "f.yaml:1: include: 'include' cannot stand in an included file; move it to the main file",
        "f.yaml:2: outbox: 'outbox' cannot stand in an included file; move it to the main file",
        "f.yaml:3: acounts: unknown key 'acounts', did you mean 'accounts'?",
        "f.yaml:4: metrics: 'metrics' cannot stand in an included file; move it to the main file",
        "f.yaml:5: defaults.egress: there is no egress 'x'; known here: default",
        "g.yaml:1: a list where a mapping belongs; write it as 'key: value' lines",
        "sub: cannot be read: Is a directory",
    ]


def test_all_problems_of_all_files_are_reported_at_once_in_their_order(problems: Problems) -> None:
    found = problems(
        """\
        shutdown: {drain: 5}
        accounts:
          a: {api_key: env:A, secret: env:B, priority: 10, interval: 5}
          a: {}
        include: [f.yaml]
        sinks: {s: {kind: prob}}
        exchange: {timeout: 8s}
        """,
        **{"f.yaml": "accounts:\n  b: {api_key: env:A, sekret: env:B}"},
    )
    assert found == [
        "accounts.yaml:1: shutdown.drain: 5 is not a duration; write 5s",
        "accounts.yaml:3: accounts.a.interval: 5 is not a duration; write 5s",
        "accounts.yaml:3: accounts.a.priority: 10 does not fit; write a number less than or equal to 9",
        "accounts.yaml:4: accounts.a: this key stands on line 3 already; remove one of the two",
        "accounts.yaml:6: sinks.s.kind: unknown kind 'prob'; did you mean 'probe'? installed: broken, probe",
        "accounts.yaml:7: exchange.timeout: '8s' is too short: the exchange itself may take 10s; write at least 12s",
        "f.yaml:2: accounts.b.sekret: unknown key 'sekret', did you mean 'secret'?",
        (
            "f.yaml:2: accounts.b: neither 'secret' nor 'private_key' is given;"
            " add secret: env:NAME (HMAC) or private_key: file:PATH (Ed25519, RSA)"
        ),
    ]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://127.0.0.1"]
)
def test_short_times_are_for_a_simulator_on_this_machine(url: str, loaded: Loaded) -> None:
    config = loaded(
        f"{A}exchange: {{base_url: '{url}', timeout: 2s, connect_timeout: 1s}}\nbudget: {{window: 2s}}"
    )
    assert (config.exchange.timeout_s, config.budget.window_s) == (2.0, 2.0)


# ---- sinks


def test_a_sink_has_what_every_sink_has_and_the_options_of_its_kind(loaded: Loaded, tmp_path: Path) -> None:
    config = loaded(
        A
        + """
sinks:
  plain: {kind: probe, path: data/x}
  full:
    kind: probe
    emit: every
    heartbeat: 1m
    batch: 7
    batch_bytes: 64KiB
    write_timeout: 5s
    retry_min: 10ms
    retry_max: 1s
    path: /abs/x
    second: y/z
    token: env:TOKEN
    size: 5
    nested: {a: 1}
"""
    )
    plain, full = config.sinks["plain"], config.sinks["full"]
    assert (plain.kind, plain.delivery, plain.options, plain.secrets) == (
        "probe",
        DeliverySettings(),
        {"path": tmp_path / "data/x"},
        {},
    )
    assert full.delivery == DeliverySettings(
        emit="every",
        heartbeat_s=60.0,
        batch_records=7,
        batch_bytes=65_536,
        write_timeout_s=5.0,
        retry_min_s=0.01,
        retry_max_s=1.0,
    )
    assert full.options == {"path": Path("/abs/x"), "second": tmp_path / "y/z", "size": 5, "nested": {"a": 1}}
    assert full.secrets == {
        "token": SecretSetting(
            SecretReference("env", "TOKEN"), tmp_path, "sinks.full.token", Place("accounts.yaml", 16)
        )
    }


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ("{path: x}", ": 'kind' is missing; add one of: broken, probe"),
        ("", ": 'kind' is missing; add one of: broken, probe"),
        ("probe", ": a text where a mapping belongs; write it as 'key: value' lines"),
        ("{kind: }", ".kind: has no value; write one, or remove the line"),
        ("{kind: 7}", ".kind: YAML takes 7 for a number; put it into quotes"),
        ("{kind: xyz}", ".kind: unknown kind 'xyz'; installed: broken, probe"),
        ("{kind: broken}", ".kind: kind 'broken' cannot be loaded: No module named 'a_missing_client'; install what it needs"),
        ("{kind: probe}", ".path: is required and missing; add it"),
        ("{kind: probe, path: 5}", ".path: YAML takes 5 for a number; put it into quotes"),
        ("{kind: probe, path: [x]}", ".path: a list does not fit; write a path"),
        ("{kind: probe, path: x, sise: 5}", ".sise: unknown key 'sise', did you mean 'size'?"),
        ("{kind: probe, path: x, batchh: 5}", ".batchh: unknown key 'batchh', did you mean 'batch'?"),
        ("{kind: probe, path: x, qq: 5}", (".qq: unknown key 'qq'; known here: accounts, batch, batch_bytes, emit,"
         " every, heartbeat, kind, labels, linger, mode, nested, on_start, only, path, retry_max, retry_min, second,"
         " size, start, token, write_timeout")),
        ("{kind: probe, path: x, size: 0}", ".size: 0 does not fit; write a number greater than or equal to 1"),
        ("{kind: probe, path: x, every: 5}", ".every: 5 is not a duration; write 5s"),
        ("{kind: probe, path: x, mode: c}", ".mode: c does not fit; write 'a' or 'b'"),
        ("{kind: probe, path: x, nested: {a: b}}", ".nested.a: b does not fit; write a whole number"),
        (f"{{kind: probe, path: x, token: {KEY}}}", f".token: {LITERAL}"),
        ("{kind: probe, path: x, emit: all}", ".emit: all does not fit; write 'changed' or 'every'"),
        ("{kind: probe, path: x, batch: 0}", ".batch: 0 does not fit; write a number greater than or equal to 1"),
        ("{kind: probe, path: x, only: [balances]}", ".only[0]: balances does not fit; write 'snapshot' or 'status'"),
        ("{kind: probe, path: x, accounts: [a/b]}", (".accounts[0]: 'a/b' matches no account's name; write a name,"
         " or a pattern such as sub-*; * stands for any characters, ? for one")),
        ("{kind: probe, path: x, accounts: [b]}", ".accounts[0]: 'b' matches no account; accounts: a"),
        ("{kind: probe, path: x, accounts: [a, b-*]}", ".accounts[1]: 'b-*' matches no account; accounts: a"),
        ("{kind: probe, path: x, labels: {desk: 5}}", ".labels.desk: YAML takes 5 for a number; put it into quotes"),
        ("{kind: probe, path: x, linger: 2h}", ".linger: '2h' is out of range; write 0s to 1h"),
        ("{kind: probe, path: x, start: newest}", ".start: newest does not fit; write 'oldest' or 'now'"),
        ("{kind: probe, path: x, on_start: die}", ".on_start: die does not fit; write 'retry' or 'fail'"),
        ("{kind: probe, path: x, heartbeat: 0s}", ".heartbeat: '0s' is out of range; write 1s to 30d"),
        ("{kind: probe, path: x, retry_min: 2m}", ".retry_max: 'retry_max' is shorter than 'retry_min'; make it at least as long"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_sink_is_refused(sink: str, expected: str, problems: Problems) -> None:
    assert problems(f"{A}sinks:\n  s: {sink}") == [f"accounts.yaml:3: sinks.s{expected}"]


def test_all_problems_of_a_sink_are_reported_at_once(problems: Problems) -> None:
    found = problems(
        A + "sinks:\n  s s:\n    kind: probe\n    emit: x\n    size: 0\n    token: abc\n    nested: 5\n"
    )
    assert found == [
        "accounts.yaml:3: sinks.?: 's s' cannot name a sink; use 1 to 64 letters, digits, '_' and '-'",
        "accounts.yaml:3: sinks.?.path: is required and missing; add it",
        "accounts.yaml:5: sinks.?.emit: x does not fit; write 'changed' or 'every'",
        "accounts.yaml:6: sinks.?.size: 0 does not fit; write a number greater than or equal to 1",
        f"accounts.yaml:7: sinks.?.token: {LITERAL}",
        "accounts.yaml:8: sinks.?.nested: 5 does not fit; write a mapping, such as {a: b}",
    ]


def test_one_file_has_one_writer(problems: Problems) -> None:
    sinks = "sinks:\n a: {kind: probe, path: x}\n b: {kind: probe, path: ./x}\n c: {kind: probe, path: d/../data/outbox.db}"
    assert problems(f"{A}{sinks}") == [
        "accounts.yaml:4: sinks.b.path: the sink 'a' writes this file already; give each one its own",
        "accounts.yaml:5: sinks.c.path: this is the outbox's own file; give the sink another",
    ]
