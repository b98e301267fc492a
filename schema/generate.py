#!/usr/bin/env python3
"""Turns schema/*.schema and schema/class/*.schema into C tables.

    generate.py           writes schema/gen/schema_ids.h and schema_tables.c
    generate.py --check   writes nothing; exits 1 when they would change

The methods that every class has by rule (getters, setters, get_all_records and
so on) are derived here; the text has the others only. The output is data: no
statement of C is written, and the same input gives the same bytes.
"""

import json
import os
import sys

import model

HERE = os.path.dirname(os.path.abspath(__file__))
FIELD_KINDS = {"GET", "SET", "ADD", "REMOVE", "ADD_TO", "REMOVE_FROM"}
OBJECT_DOCS = {
    "GET_RECORD": "Gets all fields of an object",
    "GET_BY_UUID": "Finds the object that has the given uuid",
    "GET_BY_NAME_LABEL": "Finds all objects that have the given name",
    "GET_ALL": "Lists all objects of this class",
    "GET_ALL_WHERE": "Lists the objects that a filter expression selects",
    "GET_ALL_RECORDS": "Gets all fields of all objects of this class",
    "GET_ALL_RECORDS_WHERE":
        "Gets all fields of the objects that a filter expression selects",
    "CREATE": "Creates an object from the given fields",
    "DESTROY": "Removes an object",
}
FIELD_DOCS = {
    "GET": "%s",
    "SET": "Sets the field: %s",
    "ADD": "Adds an element to the set: %s",
    "REMOVE": "Removes an element from the set: %s",
    "ADD_TO": "Adds a key to the map: %s",
    "REMOVE_FROM": "Removes a key from the map: %s",
}


# -- methods -----------------------------------------------------------

class Param:
    def __init__(self, name, type_text, default=None, secret=False):
        self.name, self.type = name, type_text
        self.default, self.secret = default, secret


class Method:
    def __init__(self, cls, name, kind, roles, params, result):
        self.cls, self.name, self.kind = cls, name, kind
        self.roles, self.params, self.result = roles, params, result
        self.flags, self.field = {"SESSION"}, None
        self.errors, self.keys = [], []
        self.since, self.state, self.doc = "", "published", ""

    @property
    def wire(self):
        return self.cls.name + "." + self.name


def own_methods(cls):
    for m in cls.messages:
        params = [Param(p.name, p.type.text, default_json(p),
                        "secret" in p.flags) for p in m.params]
        out = Method(cls, m.name, "CUSTOM", m.get("roles"), params,
                     m.result.text)
        out.flags = own_flags(m)
        out.errors, out.keys = m.errors, m.keys()
        out.since, out.state, out.doc = m.get("since"), m.state, m.doc
        yield out


def own_flags(m):
    flags = set() if "no_session" in m.flags else {"SESSION"}
    for f in ("async", "hidden", "pool_internal", "emergency", "secret",
              "no_current_operations"):
        if f in m.flags:
            flags.add(f.upper())
    if "local_dispatch" in m.flags:
        flags.add("LOCAL")
    return flags


def default_json(item):
    if "default" not in item.attrs:
        return None
    return json.dumps(item.get("default"), ensure_ascii=False)


def object_methods(cls):
    """The methods of the class as a whole: (kind, params, result)."""
    ref, record = cls.name + " ref", cls.name + " record"
    me = [Param("self", ref)]
    records = "(%s -> %s) map" % (ref, record)
    expr = [Param("expr", "string")]
    yield "GET_RECORD", me, record
    yield "GET_BY_UUID", [Param("uuid", "string")], ref
    if "by_name_label" in cls.flags:
        yield "GET_BY_NAME_LABEL", [Param("label", "string")], ref + " set"
    if "get_all" in cls.flags:
        yield "GET_ALL", [], ref + " set"
        yield "GET_ALL_RECORDS", [], records
        yield "GET_ALL_WHERE", expr, ref + " set"
        yield "GET_ALL_RECORDS_WHERE", expr, records
    if "constructor" in cls.flags:
        yield "CREATE", [Param("args", record)], ref
        yield "DESTROY", me, "void"


def field_methods(cls, f):
    """The methods of one field: (kind, name, params, result)."""
    me, t = Param("self", cls.name + " ref"), f.type
    yield "GET", "get_" + f.name, [me], t.text
    if f.qualifier != "RW" or not can_set(f):
        return
    value = Param("value", t.text)
    yield "SET", "set_" + f.name, [me, value], "void"
    if t.kind == "map":
        key = Param("key", t.key.text)
        value = Param("value", t.item.text)
        yield "ADD_TO", "add_to_" + f.name, [me, key, value], "void"
        yield "REMOVE_FROM", "remove_from_" + f.name, [me, key], "void"
    elif t.kind == "set":
        value = Param("value", t.item.text)
        yield "ADD", "add_" + f.name, [me, value], "void"
        yield "REMOVE", "remove_" + f.name, [me, value], "void"


def can_set(f):
    """A derived set of references follows its other end."""
    if not f.type.is_ref_set() or "ignore_fk" in f.flags:
        return True
    return f.relation is not None and f.relation[0] == "both"


def derived_methods(schema, cls):
    if "in_db" not in cls.flags:
        return
    for kind, params, result in object_methods(cls):
        own = kind in ("CREATE", "DESTROY")
        roles = cls.get("messages" if own else "implicit")
        m = Method(cls, kind.lower(), kind, roles, params, result)
        m.since, m.state = cls.get("since"), cls.state
        m.doc = OBJECT_DOCS[kind]
        if own:
            m.flags.add("ASYNC")
        if kind.endswith("_WHERE"):
            m.flags.add("HIDDEN")
        yield m
    for f in cls.fields:
        if "internal" not in f.flags:
            yield from derived_field_methods(schema, cls, f)


def derived_field_methods(schema, cls, f):
    for kind, name, params, result in field_methods(cls, f):
        roles = f.get("read" if kind == "GET" else "write")
        m = Method(cls, name, kind, roles, params, result)
        m.field, m.state = f, f.state
        m.since = schema.later(cls.get("since"), f.get("since"))
        m.doc = FIELD_DOCS[kind] % f.doc
        if kind in ("ADD_TO", "REMOVE_FROM"):
            m.keys = f.keys()
        yield m


def all_methods(schema):
    out, places = [], {}
    for cls in schema.classes:
        for m in list(own_methods(cls)) + list(derived_methods(schema, cls)):
            if m.wire in places:
                schema.complain(cls, "method %s is declared and derived"
                                % m.wire)
            places[m.wire] = m
            if m.state == "removed":
                m.flags.add("REMOVED")
            out.append(m)
    return sorted(out, key=lambda m: m.wire.encode())


# -- name indexes: schema.c has the reading half -----------------------

MASK = (1 << 64) - 1


def name_hash(text, seed):
    """FNV-1a with murmur3's finish; seed 0 for all but fields."""
    h = 0xcbf29ce484222325 ^ (seed * 0x9e3779b97f4a7c15 & MASK)
    for b in text.encode():
        h = (h ^ b) * 0x100000001b3 & MASK
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd & MASK
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53 & MASK
    return h ^ h >> 33


def slot_of(h, shift, mask):
    return ((h >> 32) + shift * (h >> 16 & 0xffff | 1)) & mask


def power_of_two(n):
    return 1 << max(0, n - 1).bit_length()


def name_index(names):
    """Perfect hash of (text, seed, value): (slots, shifts).

    The low bits of a name's hash choose a group, the group's shift is the
    least number that puts all its names into free slots.
    """
    n_slots = power_of_two(len(names) * 5 // 4)
    groups = [[] for _ in range(power_of_two(len(names) // 2 + 1))]
    for text, seed, value in names:
        h = name_hash(text, seed)
        groups[h & len(groups) - 1].append((h, value))
    slots, shifts = [-1] * n_slots, [0] * len(groups)
    order = sorted(range(len(groups)), key=lambda g: (-len(groups[g]), g))
    for g in order:
        for shift in range(1 << 16):
            want = [slot_of(h, shift, n_slots - 1) for h, _ in groups[g]]
            if len(set(want)) == len(want) and \
                    all(slots[w] < 0 for w in want):
                break
        else:
            raise SystemExit("generate.py: no perfect hash found")
        shifts[g] = shift
        for w, (_, value) in zip(want, groups[g]):
            slots[w] = value
    return slots, shifts


# -- C text ------------------------------------------------------------

def c_string(s):
    if s is None:
        return "NULL"
    out = []
    for ch in s:
        if ch in '"\\':
            out.append("\\" + ch)
        elif ord(ch) < 32 or ord(ch) > 126:
            out.append("".join("\\%03o" % b for b in ch.encode()))
        else:
            out.append(ch)
    return '"' + "".join(out) + '"'


def role_id(name):
    return "ROLES_" + name.upper().replace("-", "_").replace("+", "_")


def flag_list(prefix, flags, order):
    names = [prefix + f for f in order if f in flags]
    return " | ".join(names) or "0"


def wrap(words, indent, width=79):
    """Lines of at most width columns (a tab counts 8)."""
    lines, line = [], indent
    used = len(indent.expandtabs())
    for w in words:
        if used + len(w) > width and line.strip():
            lines.append(line.rstrip())
            line, used = indent, len(indent.expandtabs())
        line += w + " "
        used += len(w) + 1
    lines.append(line.rstrip())
    return lines


def row(values):
    """One initialiser: { a, b, c },"""
    values = [str(v) for v in values]
    words = [v + "," for v in values[:-1]] + [values[-1]]
    lines = wrap(words, "\t  ")
    lines[0] = "\t{ " + lines[0].strip()
    lines[-1] += " },"
    return lines


def numbers(name, ctype, values):
    out = ["static const %s %s[] = {" % (ctype, name)]
    out += wrap(["%d," % v for v in values], "\t")
    return out + ["};", ""]


class Pool:
    """Equal lists are written once; each has a place in one big array."""

    def __init__(self):
        self.rows, self.places = [], {}

    def add(self, items):
        key = tuple(items)
        if not key:
            return 0
        if key not in self.places:
            self.places[key] = len(self.rows)
            self.rows += key
        return self.places[key]


# -- the tables --------------------------------------------------------

CLASS_FLAG_ORDER = ("IN_DB", "VOLATILE", "CONSTRUCTOR", "EVENTS", "GET_ALL",
                    "PRIVATE", "STORED")
FIELD_FLAG_ORDER = ("INTERNAL", "VOLATILE", "IGNORE_FK", "EFFECT", "DEFAULT")
METHOD_FLAG_ORDER = ("ASYNC", "SESSION", "HIDDEN", "POOL_INTERNAL",
                     "EMERGENCY", "SECRET", "REMOVED", "LOCAL",
                     "NO_CURRENT_OPERATIONS")
QUALIFIER_IDS = {"RW": "FIELD_RW", "RO/constructor": "FIELD_CONSTRUCTOR",
                 "RO/runtime": "FIELD_RUNTIME"}
RELATION_IDS = {"one": "RELATION_ONE", "many": "RELATION_MANY",
                "both": "RELATION_BOTH", "self": "RELATION_NONE"}
HEADER = "/* Written by schema/generate.py from schema/class/: do not edit. */"


class Tables:
    def __init__(self, schema):
        self.schema = schema
        self.methods = all_methods(schema)
        self.class_no = {c.name: i for i, c in enumerate(schema.classes)}
        self.enum_names = sorted(schema.enums)
        self.enum_no = {n: i for i, n in enumerate(self.enum_names)}
        self.role_no = {n: i for i, n in enumerate(schema.role_sets)}
        self.first_field, n = [], 0
        for c in schema.classes:
            self.first_field.append(n)
            n += len(c.fields)
        self.n_fields = n
        self.params, self.keys, self.errors = Pool(), Pool(), Pool()
        self.collect_types()

    def collect_types(self):
        """All types by text; those that methods derive are parsed here."""
        self.types = {}
        texts = [f.type.text for c in self.schema.classes for f in c.fields]
        for m in self.methods:
            texts += [m.result] + [p.type for p in m.params]
        for text in sorted(set(texts)):
            for t in model.Cursor(text).type().parts():
                self.types.setdefault(t.text, t)
        self.type_no = {t: i for i, t in enumerate(sorted(self.types))}

    def type_ref(self, text):
        return "&types[%d]" % self.type_no[text]

    # ids

    def ids(self):
        s = self.schema
        out = [HEADER, "#ifndef SCHEMA_GEN_SCHEMA_IDS_H",
               "#define SCHEMA_GEN_SCHEMA_IDS_H", ""]
        out += self.enum("class_id", ["CLASS_" + c.name for c in s.classes],
                         "CLASS_COUNT")
        for c in s.classes:
            if c.fields:
                out += self.enum("field_id_" + c.name,
                                 ["F_%s_%s" % (c.name, f.name)
                                  for f in c.fields], None)
        out += self.enum("method_id",
                         ["M_" + m.wire.replace(".", "_")
                          for m in self.methods], "M_COUNT")
        out += self.enum("enum_id", ["ENUM_" + n for n in self.enum_names],
                         "ENUM_COUNT")
        out += self.enum("role_id",
                         ["ROLE_" + r.name.upper().replace("-", "_")
                          for r in s.roles], "ROLE_COUNT")
        out += self.enum("role_set", [role_id(n) for n in s.role_sets],
                         "ROLES_COUNT")
        out += ["/* Rows of the arrays in schema/tables.h. */",
                "#define SCHEMA_FIELDS %d" % self.n_fields,
                "#define SCHEMA_PARAMS %d" % len(self.all_params().rows), "",
                "#endif"]
        self.check_ids(out)
        return out

    def enum(self, name, ids, count):
        out = ["enum %s {" % name]
        out += ["\t%s = %d," % (x, i) for i, x in enumerate(ids)]
        if count:
            out.append("\t%s = %d," % (count, len(ids)))
        return out + ["};", ""]

    def check_ids(self, lines):
        seen = set()
        for line in lines:
            if line.startswith("\t"):
                name = line.split()[0]
                if name in seen:
                    raise SystemExit("generate.py: %s twice" % name)
                seen.add(name)

    # tables

    def tables(self):
        out = [HEADER, '#include "schema/tables.h"', ""]
        out += self.enum_tables() + self.type_table() + self.role_tables()
        body = self.class_tables() + self.method_table()
        out += self.pool_tables() + body
        out += self.error_table() + self.alert_table() + self.index_tables()
        return out

    def enum_tables(self):
        out = []
        for n in self.enum_names:
            values = [v.name for v in self.schema.enums[n].values]
            out.append("static const char *const enum_%s[] = {" % n)
            out += wrap([c_string(v) + "," for v in values], "\t")
            out += ["};", ""]
        out.append("const struct enum_def schema_enums[] = {")
        for n in self.enum_names:
            out += row([c_string(n), "enum_" + n,
                        len(self.schema.enums[n].values)])
        return out + ["};", "const unsigned schema_n_enums = ENUM_COUNT;", ""]

    def type_table(self):
        out = ["static const struct type types[] = {"]
        for text in sorted(self.types):
            t = self.types[text]
            ident = "-1"
            if t.kind == "enum":
                ident = "ENUM_" + t.name
            elif t.name:
                ident = "CLASS_" + t.name
            out += row(["TYPE_" + t.kind.upper(), ident,
                        self.type_ref(t.key.text) if t.key else "NULL",
                        self.type_ref(t.item.text) if t.item else "NULL",
                        c_string(text)])
        return out + ["};", ""]

    def role_tables(self):
        out = ["const struct role_def schema_roles[] = {"]
        for r in self.schema.roles:
            out += row([c_string(r.name), c_string(r.get("uuid")),
                        "true" if "internal" in r.flags else "false"])
        out += ["};", "const unsigned schema_n_roles = ROLE_COUNT;", "",
                "const struct role_set_def schema_role_sets[] = {"]
        names = [r.name for r in self.schema.roles]
        for n, members in self.schema.role_sets.items():
            bits = sum(1 << names.index(m) for m in members)
            out += row([c_string(n), "0x%02x" % bits])
        return out + ["};", "const unsigned schema_n_role_sets = ROLES_COUNT;",
                      ""]

    def keys_ref(self, keys):
        if not keys:
            return ["NULL", 0]
        return ["&map_keys[%d]" % self.keys.add(keys), len(keys)]

    def class_tables(self):
        fields = ["const struct field_def schema_fields[] = {"]
        classes = ["const struct class_def schema_classes[] = {"]
        for i, c in enumerate(self.schema.classes):
            if c.fields:
                fields.append("\t/* %s */" % c.name)
            for f in c.fields:
                fields += self.field_row(f)
            classes += self.class_row(i, c)
        classes += ["};", "const unsigned schema_n_classes = CLASS_COUNT;", ""]
        return fields + ["};", ""] + classes

    def class_flags(self, c):
        flags = {f.upper() for f in c.flags}
        if "in_db" in c.flags and "persist" not in c.flags:
            flags.add("VOLATILE")
        if c.stored():
            flags.add("STORED")
        return flag_list("CLASS_", flags, CLASS_FLAG_ORDER)

    def class_row(self, i, c):
        names = [f.name for f in c.fields]
        place = lambda n: names.index(n) if n in names else -1
        fields = "NULL"
        if c.fields:
            fields = "&schema_fields[%d]" % self.first_field[i]
        return row([c_string(c.name), c_string(c.name.lower()),
                    c_string(c.doc), c_string(c.get("since", "")),
                    "CLASS_" + c.name, self.class_flags(c),
                    role_id(c.get("messages")), role_id(c.get("implicit")),
                    fields, len(c.fields), place("uuid"),
                    place("name_label")])

    def field_row(self, f):
        flags = {x.upper() for x in f.flags}
        if "default" in f.attrs:
            flags.add("DEFAULT")
        relation = ["RELATION_NONE", -1, -1]
        if f.relation:
            kind, c, other = f.relation
            relation = [RELATION_IDS[kind], "CLASS_" + c.name,
                        "F_%s_%s" % (c.name, other.name)]
        return row([c_string(f.name), c_string(f.get("db", f.name)),
                    self.type_ref(f.type.text), c_string(f.doc),
                    c_string(f.get("since", "")), c_string(default_json(f)),
                    QUALIFIER_IDS[f.qualifier],
                    flag_list("FIELD_", flags, FIELD_FLAG_ORDER),
                    role_id(f.get("read")), role_id(f.get("write"))]
                   + relation + self.keys_ref(f.keys()))

    def all_params(self):
        for m in self.methods:
            self.params.add(self.param_key(m))
        return self.params

    def param_key(self, m):
        return [(p.name, p.type, p.default, p.secret) for p in m.params]

    def method_table(self):
        out = ["const struct method_def schema_methods[] = {"]
        for m in self.methods:
            out += self.method_row(m)
        return out + ["};", "const unsigned schema_n_methods = M_COUNT;", ""]

    def method_row(self, m):
        params = "NULL"
        if m.params:
            params = "&schema_params[%d]" % self.params.add(self.param_key(m))
        required = sum(p.default is None for p in m.params)
        field = -1
        if m.field:
            field = "F_%s_%s" % (m.cls.name, m.field.name)
        errors = "&error_lists[%d]" % self.errors.add(m.errors + [None])
        return row([c_string(m.wire), "CLASS_" + m.cls.name, field,
                    "METHOD_" + m.kind,
                    flag_list("METHOD_", m.flags, METHOD_FLAG_ORDER),
                    role_id(m.roles), params, len(m.params), required,
                    self.type_ref(m.result), errors, c_string(m.since),
                    c_string(m.state), c_string(m.doc)]
                   + self.keys_ref(m.keys))

    def pool_tables(self):
        out = ["static const struct map_key_role map_keys[] = {"]
        for key, roles in self.keys.rows:
            out += row([c_string(key), role_id(roles)])
        out += ["};", "", "const struct param_def schema_params[] = {"]
        for name, t, default, secret in self.params.rows:
            out += row([c_string(name), self.type_ref(t), c_string(default),
                        "true" if secret else "false"])
        out += ["};", "", "static const char *const error_lists[] = {"]
        out += wrap([c_string(e) + "," for e in self.errors.rows], "\t")
        return out + ["};", ""]

    def error_table(self):
        pool, rows = Pool(), []
        for code in sorted(self.schema.errors):
            params = self.schema.errors[code]
            place = "NULL"
            if params is not None:
                place = "&error_params[%d]" % pool.add(params + [None])
            rows += row([c_string(code), place])
        out = ["static const char *const error_params[] = {"]
        out += wrap([c_string(p) + "," for p in pool.rows], "\t")
        out += ["};", "", "const struct error_def schema_errors[] = {"] + rows
        return out + ["};", "const unsigned schema_n_errors = %d;"
                      % len(self.schema.errors), ""]

    def alert_table(self):
        out = ["const struct alert_def schema_alerts[] = {"]
        for name in sorted(self.schema.alerts):
            out += row([c_string(name), self.schema.alerts[name]])
        return out + ["};", "const unsigned schema_n_alerts = %d;"
                      % len(self.schema.alerts), ""]

    def index_tables(self):
        s = self.schema
        classes = [(c.name.lower(), 0, i) for i, c in enumerate(s.classes)]
        methods = [(m.wire, 0, i) for i, m in enumerate(self.methods)]
        errors = [(e, 0, i) for i, e in enumerate(sorted(s.errors))]
        alerts = [(a, 0, i) for i, a in enumerate(sorted(s.alerts))]
        return (self.index("classes", classes) + self.index("methods", methods)
                + self.index("errors", errors) + self.index("alerts", alerts)
                + self.index("fields", self.field_names()))

    def field_names(self):
        """Wire and database names; a field's seed is its class's number."""
        out = []
        for i, c in enumerate(self.schema.classes):
            for j, f in enumerate(c.fields):
                for name in sorted({f.name, f.get("db", f.name)}):
                    out.append((name, i + 1, self.first_field[i] + j))
        return out

    def index(self, name, names):
        slots, shifts = name_index(names)
        out = numbers(name + "_slots", "int16_t", slots)
        out += numbers(name + "_shifts", "uint16_t", shifts)
        return out + ["const struct name_index schema_index_%s = {" % name,
                      "\t%s_slots, %d, %s_shifts, %d" %
                      (name, len(slots) - 1, name, len(shifts) - 1),
                      "};", ""]


# -- main --------------------------------------------------------------

def read_text(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temp = path + ".new"
    with open(temp, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temp, path)


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit("usage: generate.py [--check]")
    problems = model.Problems()
    schema = model.load(HERE, problems)
    tables = None if problems.lines else Tables(schema)
    if problems.lines:
        sys.exit("\n".join(problems.lines))
    stale = False
    for name, lines in (("schema_ids.h", tables.ids()),
                        ("schema_tables.c", tables.tables())):
        path = os.path.join(HERE, "gen", name)
        text = "\n".join(lines) + "\n"
        if read_text(path) == text:
            continue
        if check:
            print("%s: not what generate.py writes" % os.path.relpath(path))
            stale = True
        else:
            write(path, text)
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
