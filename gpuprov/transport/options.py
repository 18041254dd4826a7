"""Which keywords of ssh_config are honoured, which are harmless to ignore, which are refused.

One table for the places where they come from: ssh_config files, and `-o` in ansible_ssh_common_args.
"""

from __future__ import annotations

import difflib

#: Keywords that change what gpuprov does. The value says how many arguments: one, many, or the raw rest of the line.
HONOURED: dict[str, str] = {
    "addressfamily": "one",
    "bindaddress": "one",
    "certificatefile": "one",
    "ciphers": "one",
    "connecttimeout": "one",
    "globalknownhostsfile": "many",
    "hashknownhosts": "one",
    "hostkeyalgorithms": "one",
    "hostkeyalias": "one",
    "hostname": "one",
    "identitiesonly": "one",
    "identityagent": "one",
    "identityfile": "one",
    "kbdinteractiveauthentication": "one",
    "kexalgorithms": "one",
    "macs": "one",
    "passwordauthentication": "one",
    "port": "one",
    "preferredauthentications": "one",
    "proxycommand": "rest",
    "proxyjump": "one",
    "pubkeyacceptedalgorithms": "one",
    "pubkeyauthentication": "one",
    "serveralivecountmax": "one",
    "serveraliveinterval": "one",
    "stricthostkeychecking": "one",
    "user": "one",
    "userknownhostsfile": "many",
}

#: Old or second names that ssh still takes.
ALIASES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
    "identityfile2": "identityfile",
    "userknownhostsfile2": "userknownhostsfile",
    "globalknownhostsfile2": "globalknownhostsfile",
}

#: Keywords that concern terminals, forwarding, multiplexing, logging or convenience: a plan needs none of them.
IGNORED = frozenset(
    [
        "addkeystoagent",
        "batchmode",
        "canonicaldomains",
        "canonicalizefallbacklocal",
        "canonicalizemaxdots",
        "canonicalizepermittedcnames",
        "casignaturealgorithms",
        "channeltimeout",
        "checkhostip",
        "clearallforwardings",
        "compression",
        "connectionattempts",
        "controlmaster",
        "controlpath",
        "controlpersist",
        "dynamicforward",
        "enableescapecommandline",
        "enablesshkeysign",
        "escapechar",
        "exitonforwardfailure",
        "fingerprinthash",
        "forkafterauthentication",
        "forwardagent",
        "forwardx11",
        "forwardx11timeout",
        "forwardx11trusted",
        "gatewayports",
        "gssapiauthentication",
        "gssapiclientidentity",
        "gssapidelegatecredentials",
        "gssapikeyexchange",
        "gssapirenewalforcesrekey",
        "gssapiserveridentity",
        "gssapitrustdns",
        "hostbasedacceptedalgorithms",
        "hostbasedauthentication",
        "ignoreunknown",
        "ipqos",
        "localcommand",
        "localforward",
        "loglevel",
        "logverbose",
        "nohostauthenticationforlocalhost",
        "numberofpasswordprompts",
        "obscurekeystroketiming",
        "permitlocalcommand",
        "permitremoteopen",
        "pkcs11provider",
        "proxyusefdpass",
        "refuseconnection",
        "rekeylimit",
        "remoteforward",
        "requesttty",
        "requiredrsasize",
        "securitykeyprovider",
        "sendenv",
        "setenv",
        "stdinnull",
        "streamlocalbindmask",
        "streamlocalbindunlink",
        "syslogfacility",
        "tag",
        "tcpkeepalive",
        "tunnel",
        "tunneldevice",
        "updatehostkeys",
        "usekeychain",
        "useprivilegedport",
        "verifyhostkeydns",
        "versionaddendum",
        "visualhostkey",
        "warnweakcrypto",
        "xauthlocation",
    ]
)

#: Keywords that would weaken or redirect a connection if they were ignored, with the values that are harmless.
REFUSED: dict[str, tuple[frozenset[str], str]] = {
    "canonicalizehostname": (frozenset({"no", "false"}), "write the full name as HostName or ansible_host"),
    "knownhostscommand": (frozenset({"none"}), "write its output to a file and name that with UserKnownHostsFile"),
    "remotecommand": (frozenset({"none"}), "gpuprov runs its own command; give such hosts a Host entry of their own"),
    "revokedhostkeys": (frozenset({"none"}), "list revoked keys as @revoked lines in a known_hosts file"),
    "sessiontype": (frozenset({"default"}), "gpuprov needs an ordinary session"),
}


class OptionError(ValueError):
    """An option that cannot be honoured. hint is an action."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def keyword(name: str) -> str:
    """Return the canonical lower-case keyword; OptionError for one that ssh does not have either."""
    lower = name.lower()
    lower = ALIASES.get(lower, lower)
    if lower in HONOURED or lower in IGNORED or lower in REFUSED:
        return lower
    close = difflib.get_close_matches(lower, [*HONOURED, *REFUSED, *IGNORED], n=1)
    raise OptionError(f'"{name}" is not an option of ssh', f'did you mean "{close[0]}"?' if close else "man ssh_config")


def check_refused(key: str, value: str) -> None:
    """Raise OptionError when *key* has a value that cannot be ignored safely."""
    if key in REFUSED:
        harmless, hint = REFUSED[key]
        if value.lower() not in harmless:
            raise OptionError(f'{key} "{value}" is not supported', hint)


def split_keyword(line: str) -> tuple[str, str]:
    """Split `Keyword value` or `Keyword=value`; the value keeps its quotes."""
    text = line.strip()
    end = 0
    while end < len(text) and not text[end].isspace() and text[end] != "=":
        end += 1
    value = text[end:].lstrip()
    if value.startswith("="):
        value = value[1:].lstrip()
    return text[:end].strip('"'), value


def split_words(text: str) -> list[str]:
    """Split arguments as ssh does: blanks, quotes of both kinds, backslashes, # starts a comment."""
    words: list[str] = []
    position, end = 0, len(text)
    while position < end:
        if text[position].isspace():
            position += 1
            continue
        if text[position] == "#":
            break
        word, position = _word(text, position)
        words.append(word)
    return words


def _word(text: str, position: int) -> tuple[str, int]:
    quote, word = "", ""
    while position < len(text):
        c = text[position]
        following = text[position + 1 : position + 2]
        if c == "\\" and following and (following in "\"'\\" or (not quote and following == " ")):
            word += following
            position += 1
        elif not quote and c.isspace():
            break
        elif not quote and c in "\"'":
            quote = c
        elif quote and c == quote:
            quote = ""
        else:
            word += c
        position += 1
    if quote:
        raise OptionError(f"a quote ({quote}) is not closed")
    return word, position
