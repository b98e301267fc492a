"""Reads the schema's text into plain objects and checks it.

The syntax is in docs/schema.md. Nothing here knows about C: generate.py writes
the tables. Every complaint names file and line; all of them are collected
before the generator gives up.
"""

import json
import os
import re

SCALARS = {"void", "string", "int", "float", "bool", "datetime"}
QUALIFIERS = ("RW", "RO/constructor", "RO/runtime")
STATES = ("published", "prototyped", "deprecated", "removed")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
VERSION = re.compile(r"(\d+(?:\.\d+)+)(-next)?$")
NULL_REF = "OpaqueRef:NULL"

LIFE = {"since", "published", "state", "deprecated", "removed", "changed",
        "extended", "tags"}
CLASS_KEYS = LIFE | {"tier", "messages", "implicit", "custom_actions"}
CLASS_FLAGS = {"core", "in_db", "persist", "events", "get_all",
               "by_name_label", "constructor", "no_task", "log_destroy",
               "stored", "private"}
FIELD_KEYS = LIFE | {"default", "db", "read", "write", "relation", "keys"}
FIELD_FLAGS = {"volatile", "internal", "ignore_fk", "effect"}
MESSAGE_KEYS = LIFE | {"roles", "forward_to", "keys"}
MESSAGE_FLAGS = {"async", "no_session", "hidden", "pool_internal",
                 "emergency", "local_dispatch", "secret", "result_secret",
                 "custom_marshaller", "no_current_operations"}
PARAM_KEYS = {"default", "since"}
PARAM_FLAGS = {"secret", "unfit"}


class Broken(Exception):
    """A line that cannot be read any further."""


class Problems:
    def __init__(self):
        self.lines = []

    def add(self, where, text):
        self.lines.append("%s:%d: %s" % (where[0], where[1], text))


class Type:
    """kind: a scalar's name, enum, ref, record, set, map or option."""

    def __init__(self, kind, text, name=None, key=None, item=None):
        self.kind, self.text, self.name = kind, text, name
        self.key, self.item = key, item

    def parts(self):
        yield self
        for t in (self.key, self.item):
            if t:
                yield from t.parts()

    def is_ref_set(self):
        return self.kind == "set" and self.item.kind == "ref"


class Item:
    """Anything declared: its place, name, doc, attributes and flags."""

    def __init__(self, where, name):
        self.where, self.name, self.doc = where, name, ""
        self.attrs, self.flags = {}, set()

    def get(self, key, default=None):
        return self.attrs.get(key, default)

    def list(self, key):
        return self.attrs[key].split(",") if key in self.attrs else []

    def keys(self):
        """Guarded map keys in order: (key, role set)."""
        return [tuple(k.rsplit(":", 1)) for k in self.list("keys")]

    @property
    def state(self):
        return self.get("state", "published")


class Cursor:
    """Words of one line; a default's JSON may hold spaces."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self):
        m = re.compile(r"\s*(->|[()]|[^\s()]+)").match(self.text, self.at)
        return (m.group(1), m.end()) if m else (None, self.at)

    def word(self, what="a word"):
        w, end = self.peek()
        if w is None:
            raise Broken("%s is missing" % what)
        self.at = end
        return w

    def expect(self, want):
        got = self.word("'%s'" % want)
        if got != want:
            raise Broken("'%s' expected, not '%s'" % (want, got))

    def rest(self):
        return self.text[self.at:].strip()

    def type(self):
        t = self.plain_type()
        while self.peek()[0] in ("set", "option"):
            w = self.word()
            t = Type(w, t.text + " " + w, item=t)
        return t

    def plain_type(self):
        w = self.word("a type")
        if w == "(":
            key = self.type()
            self.expect("->")
            item = self.type()
            self.expect(")")
            self.expect("map")
            return Type("map", "(%s -> %s) map" % (key.text, item.text),
                        key=key, item=item)
        if w in SCALARS:
            return Type(w, w)
        if w == "enum":
            name = self.word("an enum's name")
            return Type("enum", "enum " + name, name)
        kind = self.word("'ref' or 'record'")
        if kind not in ("ref", "record"):
            raise Broken("unknown type '%s'" % w)
        return Type(kind, "%s %s" % (w, kind), w)

    def attributes(self, item, keys, flags):
        """key=value words and flags up to the end or a '--'."""
        space = re.compile(r"\s*")
        word = re.compile(r"([a-z_]+)(=?)")
        while True:
            self.at = space.match(self.text, self.at).end()
            if self.at == len(self.text):
                return
            if self.text.startswith("--", self.at):
                item.doc = self.text[self.at + 2:].strip()
                return
            m = word.match(self.text, self.at)
            if not m:
                raise Broken("cannot read '%s'" % self.rest())
            self.at = m.end()
            self.attribute(item, m.group(1), m.group(2), keys, flags)

    def attribute(self, item, key, has_value, keys, flags):
        if key in item.attrs or key in item.flags:
            raise Broken("'%s' is given twice" % key)
        if not has_value:
            if key not in flags:
                raise Broken("unknown flag '%s'" % key)
            item.flags.add(key)
            return
        if key not in keys:
            raise Broken("unknown attribute '%s'" % key)
        if key == "default":
            try:
                value, self.at = json.JSONDecoder().raw_decode(self.text,
                                                               self.at)
            except ValueError:
                raise Broken("the default is not JSON") from None
        else:
            m = re.compile(r"\S+").match(self.text, self.at)
            if not m:
                raise Broken("'%s=' has no value" % key)
            value, self.at = m.group(0), m.end()
        item.attrs[key] = value


class Class(Item):
    def __init__(self, where, name):
        super().__init__(where, name)
        self.fields, self.messages = [], []

    def field(self, name):
        return next((f for f in self.fields if f.name == name), None)

    def stored(self):
        return bool(self.flags & {"in_db", "private", "stored"})


class Schema:
    def __init__(self, problems):
        self.problems = problems
        self.classes, self.enums, self.errors = [], {}, {}
        self.roles, self.role_sets, self.permissions = [], {}, {}
        self.alerts, self.releases = {}, []
        self.relations = []
        self.by_name = {}

    # -- reading ---------------------------------------------------------

    def read(self, root):
        for name in ("releases", "roles", "enums", "errors", "alerts"):
            self.read_file(os.path.join(root, name + ".schema"))
        folder = os.path.join(root, "class")
        for name in sorted(os.listdir(folder), key=str.lower):
            if name.endswith(".schema"):
                self.read_file(os.path.join(folder, name))
        # Private classes come last, so that public numbers are together.
        self.classes.sort(key=lambda c: ("private" in c.flags,
                                         c.name.lower()))
        self.by_name = {c.name: c for c in self.classes}

    def read_file(self, path):
        self.block = None
        short = os.path.relpath(path)
        with open(path, encoding="utf-8") as f:
            for n, line in enumerate(f, 1):
                line = line.rstrip("\n")
                if not line.strip() or line.startswith("#"):
                    continue
                self.where = (short, n)
                try:
                    self.read_line(line)
                except Broken as e:
                    self.problems.add(self.where, str(e))

    def read_line(self, line):
        cursor = Cursor(line)
        if line[0] in " \t":
            if self.block is None:
                raise Broken("an indented line outside a block")
            self.block(cursor)
            return
        self.block = None
        readers = {
            "release": self.read_release, "role": self.read_role,
            "set": self.read_set, "permission": self.read_permission,
            "alert": self.read_alert, "error": self.read_error,
            "enum": self.read_enum, "class": self.read_class,
            "field": self.read_field, "message": self.read_message,
        }
        word = cursor.word()
        if word not in readers:
            raise Broken("unknown keyword '%s'" % word)
        readers[word](cursor)

    def new_name(self, cursor, known, what):
        name = cursor.word("the %s's name" % what)
        if name in known:
            raise Broken("%s %s is declared twice" % (what, name))
        return name

    def read_release(self, cursor):
        item = Item(self.where, self.new_name(cursor, self.releases,
                                              "release"))
        cursor.attributes(item, {"api"}, set())
        self.releases.append(item.name)

    def read_role(self, cursor):
        names = [r.name for r in self.roles]
        item = Item(self.where, self.new_name(cursor, names, "role"))
        cursor.attributes(item, {"uuid"}, {"internal"})
        self.roles.append(item)

    def read_set(self, cursor):
        name = self.new_name(cursor, self.role_sets, "set")
        cursor.expect("=")
        members = cursor.rest().split()
        known = [r.name for r in self.roles]
        for m in members:
            if m not in known:
                raise Broken("unknown role %s" % m)
        self.role_sets[name] = members

    def read_permission(self, cursor):
        name = self.new_name(cursor, self.permissions, "permission")
        roles = cursor.word("a role set")
        self.check_roles(self.where, roles)
        self.permissions[name] = roles

    def read_alert(self, cursor):
        name = self.new_name(cursor, self.alerts, "alert")
        priority = cursor.word("a priority")
        if priority not in "12345":
            raise Broken("the priority is 1 to 5")
        self.alerts[name] = int(priority)

    def read_error(self, cursor):
        code = self.new_name(cursor, self.errors, "error")
        text = cursor.rest()
        if text == "?":
            self.errors[code] = None
        elif not text:
            self.errors[code] = []
        elif text[0] == "(" and text[-1] == ")":
            self.errors[code] = [p.strip() for p in text[1:-1].split(",")]
        else:
            raise Broken("parameters are (a, b) or ?")

    def read_enum(self, cursor):
        item = Item(self.where, self.new_name(cursor, self.enums, "enum"))
        item.values = []
        self.enums[item.name] = item
        self.block = lambda c: self.read_enum_value(item, c)

    def read_enum_value(self, enum, cursor):
        names = [v.name for v in enum.values]
        item = Item(self.where, self.new_name(cursor, names, "value"))
        cursor.attributes(item, {"since"}, set())
        enum.values.append(item)

    def read_class(self, cursor):
        names = [c.name for c in self.classes]
        c = Class(self.where, self.new_name(cursor, names, "class"))
        if os.path.basename(self.where[0]) != c.name + ".schema":
            self.problems.add(self.where, "class %s is in a file of another "
                              "name" % c.name)
        self.classes.append(c)
        self.block = lambda cur: self.read_block_line(
            c, cur, CLASS_KEYS, CLASS_FLAGS)

    def read_block_line(self, item, cursor, keys, flags):
        text = cursor.rest()
        if text.startswith("--"):
            item.doc = text[2:].strip()
        else:
            cursor.attributes(item, keys, flags)

    def current_class(self):
        if not self.classes or self.classes[-1].where[0] != self.where[0]:
            raise Broken("there is no class in this file yet")
        return self.classes[-1]

    def read_field(self, cursor):
        c = self.current_class()
        names = [f.name for f in c.fields]
        f = Item(self.where, self.new_name(cursor, names, "field"))
        f.type = cursor.type()
        f.qualifier = cursor.word("RW, RO/constructor or RO/runtime")
        if f.qualifier not in QUALIFIERS:
            raise Broken("unknown qualifier '%s'" % f.qualifier)
        cursor.attributes(f, FIELD_KEYS, FIELD_FLAGS)
        f.relation = None
        c.fields.append(f)

    def read_message(self, cursor):
        c = self.current_class()
        names = [m.name for m in c.messages]
        m = Item(self.where, self.new_name(cursor, names, "message"))
        cursor.expect("->")
        m.result = cursor.type()
        if cursor.rest():
            raise Broken("'%s' after the result's type" % cursor.rest())
        m.params, m.errors = [], []
        c.messages.append(m)
        self.block = lambda cur: self.read_message_line(m, cur)

    def read_message_line(self, m, cursor):
        word = cursor.peek()[0]
        if word == "param":
            cursor.word()
            names = [p.name for p in m.params]
            p = Item(self.where, self.new_name(cursor, names, "parameter"))
            p.type = cursor.type()
            cursor.attributes(p, PARAM_KEYS, PARAM_FLAGS)
            m.params.append(p)
        elif word == "errors":
            cursor.word()
            m.errors += cursor.rest().split()
        else:
            self.read_block_line(m, cursor, MESSAGE_KEYS, MESSAGE_FLAGS)

    # -- checking --------------------------------------------------------

    def complain(self, item, text):
        self.problems.add(item.where, text)

    def check(self):
        self.check_lists()
        for c in self.classes:
            self.check_class(c)
            for f in c.fields:
                self.check_field(c, f)
            for m in c.messages:
                self.check_message(c, m)
        self.find_relations()

    def check_lists(self):
        nocase = {}
        for c in self.classes:
            other = nocase.setdefault(c.name.lower(), c)
            if other is not c:
                self.complain(c, "differs from %s in case only" % other.name)
        for e in self.enums.values():
            if not e.values:
                self.complain(e, "enum %s has no values" % e.name)
            for v in e.values:
                self.check_life(v)

    def check_class(self, c):
        if not NAME.match(c.name):
            self.complain(c, "'%s' is not a name" % c.name)
        self.check_doc(c)
        self.check_life(c)
        if "private" in c.flags:
            c.attrs.setdefault("messages", "local-root")
            c.attrs.setdefault("implicit", "local-root")
        elif "since" not in c.attrs:
            self.complain(c, "since is missing")
        for key in ("messages", "implicit"):
            self.check_roles(c.where, c.get(key))
        if c.stored() and not c.field("uuid"):
            self.complain(c, "a stored class needs a uuid")
        if "by_name_label" in c.flags and not c.field("name_label"):
            self.complain(c, "by_name_label needs a field name_label")

    def check_field(self, c, f):
        if not NAME.match(f.name):
            self.complain(f, "'%s' is not a name" % f.name)
        db = f.get("db", f.name)
        if re.sub("__", "_", db) != f.name:
            self.complain(f, "database name %s does not fit" % db)
        if "since" not in f.attrs and "private" not in c.flags:
            self.complain(f, "since is missing")
        self.check_doc(f)
        self.check_life(f)
        self.check_type(f, f.type)
        if f.get("write") == "none":
            f.attrs["write"] = "local-root"
        f.attrs.setdefault("write", c.get("messages"))
        f.attrs.setdefault("read", "local-root" if "private" in c.flags
                           else "read-only")
        self.check_roles(f.where, f.get("read"))
        self.check_roles(f.where, f.get("write"))
        self.check_keys(f)
        if "keys" in f.attrs and f.type.kind != "map":
            self.complain(f, "keys need a map")
        if "ignore_fk" in f.flags and not f.type.is_ref_set():
            self.complain(f, "ignore_fk needs a set of refs")
        self.check_default(f)

    def check_message(self, c, m):
        if not NAME.match(m.name):
            self.complain(m, "'%s' is not a name" % m.name)
        if "since" not in m.attrs:
            self.complain(m, "since is missing")
        self.check_doc(m)
        self.check_life(m)
        self.check_type(m, m.result)
        self.check_roles(m.where, m.get("roles"))
        self.check_keys(m)
        for e in m.errors:
            if e not in self.errors:
                self.complain(m, "unknown error %s" % e)
        optional = False
        for p in m.params:
            self.check_type(p, p.type)
            self.check_life(p)
            self.check_default(p)
            if optional and "default" not in p.attrs:
                self.complain(p, "follows an optional one and has no default")
            optional = optional or "default" in p.attrs

    def check_doc(self, item):
        if not item.doc:
            self.complain(item, "%s has no description" % item.name)

    def check_life(self, item):
        if item.state not in STATES:
            self.complain(item, "unknown state %s" % item.state)
        for key in ("since", "published", "deprecated", "removed", "changed",
                    "extended"):
            for v in item.list(key):
                if v not in self.releases and not VERSION.match(v):
                    self.complain(item, "unknown release %s" % v)

    def check_roles(self, where, name):
        if name not in self.role_sets:
            self.problems.add(where, "unknown role set %s" % name)

    def check_keys(self, item):
        for k in item.list("keys"):
            if ":" not in k:
                self.complain(item, "keys are KEY:ROLES")
                return
            self.check_roles(item.where, k.rsplit(":", 1)[1])

    def check_type(self, item, t):
        for p in t.parts():
            if p.kind == "enum" and p.name not in self.enums:
                self.complain(item, "unknown enum %s" % p.name)
            if p.kind in ("ref", "record") and p.name not in self.by_name:
                self.complain(item, "unknown class %s" % p.name)

    def check_default(self, item):
        if "default" not in item.attrs:
            return
        fits = self.fits(item.type, item.get("default"))
        if "unfit" in item.flags:
            if fits:
                self.complain(item, "the default does fit")
        elif not fits:
            self.complain(item, "the default is not a %s" % item.type.text)

    def fits(self, t, v):
        if t.kind == "bool":
            return isinstance(v, bool)
        if t.kind == "int":
            return type(v) is int and -2**63 <= v < 2**63
        if t.kind == "float":
            return type(v) in (int, float)
        if t.kind == "datetime":
            return isinstance(v, str) and bool(
                re.match(r"\d{8}T\d\d:\d\d:\d\dZ$", v))
        if t.kind in ("string", "ref"):
            return isinstance(v, str)
        if t.kind == "enum":
            e = self.enums.get(t.name)
            return bool(e) and v in [x.name for x in e.values]
        if t.kind == "set":
            return isinstance(v, list) and all(self.fits(t.item, x)
                                               for x in v)
        if t.kind == "map":
            return isinstance(v, dict) and all(
                self.fits_key(t.key, k) and self.fits(t.item, x)
                for k, x in v.items())
        return False

    def fits_key(self, t, k):
        if t.kind == "int":
            return bool(re.match(r"-?\d+$", k))
        return self.fits(t, k)

    # -- relations -------------------------------------------------------

    def find_relations(self):
        """Sets f.relation = (kind, class, field) and fills relations."""
        for c in self.classes:
            for f in c.fields:
                if "relation" in f.attrs:
                    self.find_relation(c, f)
                elif f.type.is_ref_set() and "ignore_fk" not in f.flags \
                        and c.stored():
                    self.complain(f, "a set of refs needs a relation or "
                                  "ignore_fk")

    def find_relation(self, c, f):
        cname, _, fname = f.get("relation").partition(".")
        other = self.by_name.get(cname)
        of = other.field(fname) if other else None
        if of is None:
            self.complain(f, "dangling relation %s" % f.get("relation"))
            return
        if of.get("relation") != "%s.%s" % (c.name, f.name):
            self.complain(f, "%s.%s does not point back" % (cname, fname))
            return
        kind = self.relation_kind(c, f, other, of)
        if kind is None:
            self.complain(f, "types do not fit %s" % f.get("relation"))
            return
        f.relation = (kind, other, of)
        one, two = (c.name, f.name), (cname, fname)
        if kind == "one" or kind == "self" or (kind == "both" and
                                               one <= two):
            self.relations.append((one, two, kind))

    def relation_kind(self, c, f, other, of):
        """one: f is the single reference; many: f is its set; both: many to
        many; self: a set bound to itself, which is stored as it is."""
        if f is of:
            return "self" if f.type.is_ref_set() else None
        if f.type.kind == "ref" and of.type.is_ref_set():
            return "one" if (f.type.name == other.name and
                             of.type.item.name == c.name) else None
        if f.type.is_ref_set() and of.type.kind == "ref":
            return "many"
        if f.type.is_ref_set() and of.type.is_ref_set():
            return "both" if (f.type.item.name == other.name and
                              of.type.item.name == c.name) else None
        return None

    # -- ages ------------------------------------------------------------

    def age(self, release):
        """Sorts by age: every numbered version is newer than the named."""
        if release in self.releases:
            return (0, self.releases.index(release))
        m = VERSION.match(release)
        return (1, [int(x) for x in m.group(1).split(".")],
                m.group(2) is not None)

    def later(self, a, b):
        return max((x for x in (a, b) if x), key=self.age, default="")


def load(root, problems):
    schema = Schema(problems)
    schema.read(root)
    if not problems.lines:
        schema.check()
    return schema
