"""Secrets: hidden in every spelling, taken out of plans on disk, put back or refused."""

from __future__ import annotations

import base64
import html
import json
import os
import shlex
import sys
import unittest
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.masking import MASK, Masks, SecretsMissing, with_secrets, without_secrets

SECRET = "s3cr\"t & pa$$word/<ü>'"
KEY = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAAEbm9uZQAAAAAAAAAB\n-----END KEY-----\n"


def spellings() -> dict:
    raw = SECRET.encode()
    found = {
        "plain": SECRET,
        "json": json.dumps(SECRET),
        "json as it is": json.dumps(SECRET, ensure_ascii=False),
        "shell": shlex.quote(SECRET),
        "url": urllib.parse.quote(SECRET, safe=""),
        "url path": urllib.parse.quote(SECRET),
        "form": urllib.parse.quote_plus(SECRET),
        "html": html.escape(SECRET, quote=False),
        "html attribute": html.escape(SECRET),
        "base64": base64.b64encode(raw).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(raw).decode(),
    }
    for user in ("a", "ab", "abc"):
        found["basic auth of " + user] = base64.b64encode(user.encode() + b":" + raw).decode()
    return found


class Hidden(unittest.TestCase):
    def test_every_spelling(self) -> None:
        masks = Masks([SECRET])
        for name, text in spellings().items():
            with self.subTest(name):
                hidden = masks.hide({"stdout": "before %s after" % text})["stdout"]
                self.assertIn(MASK, hidden)
                self.assertNotIn(text, hidden)
                self.assertTrue(masks.in_json(json.dumps({"stdout": text})))

    def test_a_key_of_many_lines_is_hidden_line_by_line(self) -> None:
        hidden = Masks([KEY]).hide(["> " + line for line in KEY.splitlines()])
        self.assertNotIn("b3BlbnNzaC1rZXktdjE", str(hidden))
        self.assertEqual(Masks([KEY]).hide(KEY), MASK)

    def test_secrets_inside_secrets(self) -> None:
        self.assertEqual(Masks(["pass", "password"]).hide("my password"), "my " + MASK)

    def test_numbers_and_structure_stay(self) -> None:
        value = {"rc": 1234, "list": [True, None, 12.5]}
        self.assertEqual(Masks(["1234", "12.5", "True"]).hide(value), value)


class Events(unittest.TestCase):
    def test_no_secret_however_short_breaks_the_journal(self) -> None:
        import tempfile

        from gpuprov.agent.journal import Journal

        for secret in ("1", "kind", "changed", "p1.t1", "event", '"', "}", "ok", "seq"):
            with self.subTest(secret), tempfile.TemporaryDirectory() as folder:
                journal = Journal(os.path.join(folder, "journal"), [secret])
                journal.write(
                    "TaskFinished", id="p1.t1", outcome="changed", result={"stdout": "<%s>" % secret, "rc": 1}
                )
                (event,) = Journal(journal.path).recover()
                os.close(journal._fd)
                self.assertEqual((event["kind"], event["id"], event["outcome"]), ("TaskFinished", "p1.t1", "changed"))
                self.assertNotIn("<%s>" % secret, json.dumps(event["result"]))


class Plans(unittest.TestCase):
    def plan(self, *secrets: str) -> dict:
        args = {name: "x %s y" % text for name, text in spellings().items()}
        return {"run": "r1", "plays": [{"args": args, "name": "copy"}], "secrets": list(secrets)}

    def test_on_disk_there_is_no_secret(self) -> None:
        text = json.dumps(without_secrets(self.plan(SECRET)))
        for spelling in spellings().values():
            self.assertNotIn(json.dumps(spelling)[1:-1], text)
        self.assertNotIn('"secrets"', text)

    def test_given_again_they_are_put_back_in_any_order(self) -> None:
        plan = self.plan(SECRET, "other", "copy")
        disk = json.loads(json.dumps(without_secrets(plan)))
        whole = with_secrets(disk, ["more", "copy", "other", SECRET])
        self.assertEqual(whole["plays"], plan["plays"])
        self.assertEqual(whole["run"], "r1")
        self.assertEqual(whole["secrets"], ["more", "copy", "other", SECRET])

    def test_not_given_again_the_plan_is_refused(self) -> None:
        disk = without_secrets(self.plan(SECRET, "copy"))
        for given, number in (([], "2 secrets"), (["copy"], "1 secret"), (["copy", SECRET + "!"], "1 secret")):
            with self.assertRaises(SecretsMissing) as caught:
                with_secrets(disk, given)
            self.assertIn(number, str(caught.exception))
            self.assertNotIn("copy", str(caught.exception))

    def test_a_secret_that_the_rest_of_the_plan_does_not_name_need_not_be_given(self) -> None:
        disk = without_secrets({"run": "r1", "plays": [], "secrets": ["sudo password"]})
        self.assertEqual(with_secrets(disk, [])["plays"], [])

    def test_masks_never_come_from_disk(self) -> None:
        self.assertNotIn(MASK, json.dumps(without_secrets(self.plan(SECRET))))

    def test_a_plan_without_secrets_is_as_it_was(self) -> None:
        plan = {"run": "r1", "plays": [{"x": "********"}]}
        self.assertEqual(with_secrets(without_secrets(plan), []), {**plan, "secrets": []})


if __name__ == "__main__":
    unittest.main()
