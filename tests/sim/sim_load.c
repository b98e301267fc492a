/* Clients: each asks a member for something, waits, retries with the same
 * transaction id when it does not know what became of it, and goes on. */
#include "tests/sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "schema/gen/schema_ids.h"

#define CLS(name) (&schema_classes[CLASS_##name])
#define ATTEMPTS_MAX 6

struct client {
	int i;
	bool final; /* bound to its node */
	struct node *node;
	unsigned phase;
	struct client_op *op;
	/* what its session has seen: as clients know it, and as checkers do */
	uint64_t generation;
	size_t seen;
};

struct attempt {
	struct client *client;
	struct client_op *op;
	struct life *life;
};

static struct client_op **ops;
static size_t n_ops, cap_ops;
static struct map by_id;
static struct client clients[16 + NODES_MAX];
static unsigned n_clients;
static bool initialised, final;
static uint64_t steps;

/* --- what is asked for --- */

static const char *register_ref(unsigned i)
{
	static char refs[4][24];
	static unsigned turn;
	char *ref = refs[turn++ % 4];

	snprintf(ref, sizeof refs[0], "OpaqueRef:r%u", i);
	return ref;
}

static const char *vm_ref(unsigned i)
{
	static char ref[24];

	snprintf(ref, sizeof ref, "OpaqueRef:vm%u", i);
	return ref;
}

static const char *disk_ref(unsigned i)
{
	static char ref[24];

	snprintf(ref, sizeof ref, "OpaqueRef:vbd%u", i);
	return ref;
}

static struct value *value_of(uint64_t number)
{
	return value_printf("v%llu", (unsigned long long)number);
}

static uint64_t number_of(const struct record *r, unsigned field)
{
	const char *s = r ? record_str(r, field) : "";

	return *s == 'v' ? strtoull(s + 1, NULL, 10) : 0;
}

uint64_t load_register(const struct store *s, unsigned i)
{
	return number_of(store_get(s, register_ref(i)), F_secret_value);
}

bool load_disk(const struct store *s, unsigned i)
{
	return store_get(s, disk_ref(i)) != NULL;
}

size_t load_tags(const struct store *s)
{
	struct record *r = store_get(s, vm_ref(0));

	return r ? r->fields[F_VM_tags]->n : 0;
}

static void put_init(struct txn *t)
{
	for (unsigned i = 0; i < sim->shape.n_registers; i++) {
		txn_create(t, CLS(secret), register_ref(i));
		txn_set(t, CLS(secret), register_ref(i), F_secret_uuid,
			value_printf("secret-%u", i));
		txn_set(t, CLS(secret), register_ref(i), F_secret_value,
			value_of(0));
	}
	for (unsigned i = 0; i < VMS; i++) {
		txn_create(t, CLS(VM), vm_ref(i));
		txn_set(t, CLS(VM), vm_ref(i), F_VM_uuid,
			value_printf("vm-%u", i));
	}
}

static void put_set(struct txn *t, unsigned reg, uint64_t number)
{
	txn_set(t, CLS(secret), register_ref(reg), F_secret_value,
		value_of(number));
}

static uint64_t put_guard(struct txn *t, const struct store *s, unsigned reg)
{
	struct record *r = store_get(s, register_ref(reg));

	if (!r)
		return UINT64_MAX;
	txn_guard_field(t, r, F_secret_value);
	return number_of(r, F_secret_value);
}

static void put_create(struct txn *t, const struct client_op *op)
{
	txn_guard_absent(t, disk_ref(op->a));
	txn_create(t, CLS(VBD), disk_ref(op->a));
	txn_set(t, CLS(VBD), disk_ref(op->a), F_VBD_uuid,
		value_printf("vbd-%u", op->a));
	txn_set(t, CLS(VBD), disk_ref(op->a), F_VBD_VM,
		value_stringz(vm_ref(op->b)));
}

static void put_op(struct txn *t, struct client_op *op, const struct store *s)
{
	switch (op->kind) {
	case OPC_INIT:
		put_init(t);
		break;
	case OPC_SET:
		put_set(t, op->a, op->number);
		break;
	case OPC_SWAP:
		op->expect_b = put_guard(t, s, op->b);
		put_set(t, op->b, op->number);
		/* fall through */
	case OPC_CAS:
		op->expect_a = put_guard(t, s, op->a);
		put_set(t, op->a, op->number);
		break;
	case OPC_TAG:
		txn_set_add(t, CLS(VM), vm_ref(0), F_VM_tags,
			    value_of(op->number));
		break;
	case OPC_CREATE:
		put_create(t, op);
		break;
	case OPC_REMOVE:
		txn_destroy(t, disk_ref(op->a));
		break;
	case OPC_TOUCH:
		put_set(t, op->a, op->number);
		txn_touch(t, vm_ref(1));
		break;
	case OPC_READ:
	case OPC_LOCAL:
		break;
	}
}

/* Made once, at the first member that it reaches; the same bytes later. */
static struct txn *txn_of(struct client_op *op, const struct store *s)
{
	struct txn *t;
	struct reader r;

	if (op->encoded.len > 0) {
		r = reader_of(op->encoded.data, op->encoded.len);
		t = txn_decode(&r);
		xassert(t);
		return t;
	}
	t = txn_new("client");
	put_op(t, op, s);
	memcpy(op->id, t->id, TXN_ID_LEN);
	txn_encode(&op->encoded, t);
	map_put(&by_id, (const char *)op->id, TXN_ID_LEN, op);
	return t;
}

struct client_op *load_op_of(const uint8_t id[TXN_ID_LEN])
{
	return map_get(&by_id, (const char *)id, TXN_ID_LEN);
}

struct client_op *load_op(size_t i)
{
	return i < n_ops ? ops[i] : NULL;
}

static enum op_kind_client random_kind(void)
{
	static const enum op_kind_client kinds[] = {
		OPC_READ, OPC_READ, OPC_READ, OPC_READ, OPC_LOCAL, OPC_LOCAL,
		OPC_LOCAL, OPC_LOCAL, OPC_LOCAL, OPC_LOCAL, OPC_SET, OPC_SET,
		OPC_SET, OPC_CAS, OPC_CAS, OPC_CAS, OPC_SWAP, OPC_TAG,
		OPC_CREATE, OPC_CREATE, OPC_REMOVE, OPC_TOUCH,
	};

	return kinds[sim_pick(ARRAY_LEN(kinds))];
}

static struct client_op *op_new(enum op_kind_client kind)
{
	struct client_op *op = xcalloc(1, sizeof *op);
	unsigned regs = sim->shape.n_registers;

	if (n_ops == cap_ops) {
		cap_ops = MAX(cap_ops * 2, (size_t)256);
		ops = xrealloc(ops, cap_ops * sizeof(struct client_op *));
	}
	ops[n_ops++] = op;
	op->number = n_ops;
	op->kind = kind;
	op->a = (unsigned)sim_pick(regs);
	op->b = (op->a + 1 + (unsigned)sim_pick(regs - 1)) % regs;
	if (kind == OPC_CREATE || kind == OPC_REMOVE) {
		op->a = (unsigned)sim_pick(DISKS);
		op->b = (unsigned)sim_pick(VMS);
	}
	op->floor = check_floor();
	op->called = ++steps;
	return op;
}

/* --- attempts --- */

static void on_next(void *data);
static void attempt(struct client *c, struct node *n);

static void think(struct client *c, int64_t mean)
{
	sim_at(sim->now + sim_spread(mean), NULL, on_next, NULL, c);
}

static void op_done(struct client *c)
{
	c->op = NULL;
	c->phase++;
	think(c, sim->shape.think_mean);
}

static const char *const kind_names[] = {
	"init", "set", "cas", "swap", "tag", "create", "remove", "touch", "read",
	"local",
};

/* The session has seen what this member shows now. */
static void has_seen(struct client *c, const struct life *l)
{
	c->generation = MAX(c->generation,
			    store_generation(db_store(l->db)));
	c->seen = MAX(c->seen, l->position);
}

static void acked(struct attempt *a, struct txn_result r)
{
	struct client_op *op = a->op;

	sim_trace("client %d: %s %llu acknowledged: %d at %llu", a->client->i,
		  kind_names[op->kind], (unsigned long long)op->number,
		  r.status, (unsigned long long)r.generation);
	check_acked(a->life, op, r);
	if (op->acked)
		return;
	has_seen(a->client, a->life);
	op->acked = true;
	op->result = r;
	op->returned = ++steps;
	sim->n_acked++;
	if (op->kind == OPC_INIT)
		initialised = true;
}

/* It may or may not have been done. */
static void not_acked(struct client *c, struct client_op *op, int error)
{
	sim_trace("client %d: %s %llu: %s", c->i, kind_names[op->kind],
		  (unsigned long long)op->number, strerror(-error));
	if (error == -ENOSPC && op->unknown == 0 && op->waiting == 0 &&
	    op->attempts == 1 && op->kind != OPC_INIT && !c->final) {
		op->never = true;
		sim->n_refused++;
		op->attempts = ATTEMPTS_MAX;
	} else {
		op->unknown++;
	}
}

static void attempt_ended(struct attempt *a, int error, struct txn_result r)
{
	struct client *c = a->client;
	struct client_op *op = a->op;

	op->waiting--;
	if (error == 0 && !a->life->dead && !a->life->dying)
		acked(a, r);
	else
		not_acked(c, op, error ? error : -ECANCELED);
	free(a);
	if (c->op != op || (!op->acked && op->waiting > 0))
		return;
	if (op->acked || (!c->final && op->kind != OPC_INIT &&
			  (op->attempts >= ATTEMPTS_MAX || sim_chance(200)))) {
		sim->n_unknown += !op->acked;
		op_done(c);
		return;
	}
	think(c, 50 * MS);
}

static void on_txn(void *data, int error, struct txn_result r)
{
	attempt_ended(data, error, r);
}

static void on_read(void *data, int error)
{
	struct attempt *a = data;
	struct client *c = a->client;
	struct client_op *op = a->op;

	op->waiting--;
	if (error == 0 && !a->life->dead && !a->life->dying) {
		check_read(a->life, op);
		has_seen(c, a->life);
		op->acked = true;
		op->returned = ++steps;
		sim->n_reads++;
		sim_trace("client %d: read %llu at %zu", c->i,
			  (unsigned long long)op->number, a->life->position);
	} else {
		sim->n_failed_reads++;
		sim_trace("client %d: read %llu: %s", c->i,
			  (unsigned long long)op->number, strerror(-error));
	}
	free(a);
	if (c->op != op)
		return;
	if (c->final && !op->acked)
		think(c, 50 * MS);
	else
		op_done(c);
}

/* As pool/req_read.c does it: no older than what the session has seen, and with
 * its age. */
static void local_read(struct client *c, struct client_op *op, struct life *l)
{
	int64_t age = sim->plant == PLANT_AGE ? 0 : db_age_ms(l->db);

	if (store_generation(db_store(l->db)) >= c->generation ||
	    sim->plant == PLANT_SESSION) {
		check_local(l, op, age, &c->seen);
		has_seen(c, l);
		op->acked = true;
		sim->n_local++;
		sim_trace("client %d: local %llu at %zu, %lld ms old", c->i,
			  (unsigned long long)op->number, l->position,
			  (long long)age);
	}
	op->waiting--;
	op_done(c);
}

static bool is_serving(const struct life *l)
{
	return l->serving_term > 0;
}

static void on_attempt(void *data)
{
	struct attempt *a = data;
	struct client_op *op = a->op;

	a->life = sim->cur;
	op->attempts++;
	sim_trace("client %d: %s %llu a%u b%u", a->client->i,
		  kind_names[op->kind], (unsigned long long)op->number, op->a,
		  op->b);
	if (op->kind == OPC_LOCAL) {
		local_read(a->client, op, a->life);
		free(a);
		return;
	}
	if (op->kind == OPC_READ) {
		if ((sim->plant == PLANT_READ_LOCAL ||
		     sim->plant == PLANT_STALE_SEARCH) &&
		    !is_serving(a->life))
			on_read(a, 0);
		else
			db_read_barrier(a->life->db, on_read, a);
		return;
	}
	if (sim->plant == PLANT_ACK_EARLY && !is_serving(a->life) &&
	    sim_chance(50)) {
		acked(a, (struct txn_result){ .status = TXN_OK });
		op->waiting--;
		op_done(a->client);
		free(a);
		return;
	}
	db_submit(a->life->db, txn_of(op, db_store(a->life->db)), on_txn, a);
}

/* The member died before it reached it. */
static void on_attempt_dropped(void *data)
{
	struct attempt *a = data;
	struct client *c = a->client;
	bool current = c->op == a->op;

	a->op->waiting--;
	if (current && a->op->waiting == 0)
		think(c, 50 * MS);
	free(a);
}

static void attempt(struct client *c, struct node *n)
{
	struct attempt *a = xcalloc(1, sizeof *a);

	a->client = c;
	a->op = c->op;
	a->op->waiting++;
	sim_at(sim->now + sim_spread(200), n->life, on_attempt,
	       on_attempt_dropped, a);
}

static struct node *some_node(void)
{
	struct node *up[NODES_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < sim->n_nodes; i++)
		if (sim->nodes[i].life && sim->nodes[i].in_pool)
			up[n++] = &sim->nodes[i];
	return n > 0 ? up[sim_pick(n)] : NULL;
}

static enum op_kind_client next_kind(const struct client *c)
{
	if (c->final)
		return c->phase == 0 ? OPC_SET : OPC_READ;
	return initialised ? random_kind() : OPC_INIT;
}

static void on_next(void *data)
{
	struct client *c = data;
	struct node *n = c->final ? c->node : some_node();

	if (c->op && c->op->waiting > 0)
		return;
	if (c->final ? c->phase >= 2
		     : sim->healed && (initialised || c->i != 0))
		return; /* that is all */
	if (!n || !n->life || (!initialised && c->i != 0)) {
		think(c, 100 * MS);
		return;
	}
	if (!c->op)
		c->op = op_new(next_kind(c));
	attempt(c, n);
	/* Impatient: the same of another member meanwhile. */
	if (!c->final && c->op->kind != OPC_READ && sim_chance(60) &&
	    c->op->encoded.len > 0)
		attempt(c, some_node());
}

/* --- the life of the load --- */

void load_start(void)
{
	map_init(&by_id);
	n_ops = 0;
	steps = 0;
	initialised = final = false;
	n_clients = sim->shape.n_clients;
	for (unsigned i = 0; i < n_clients; i++) {
		clients[i] = (struct client){ .i = (int)i };
		think(&clients[i], 50 * MS);
	}
}

void load_final(void)
{
	if (final)
		return;
	final = true;
	for (unsigned i = 0; i < sim->n_nodes; i++) {
		struct client *c = &clients[n_clients];

		if (!sim->nodes[i].in_pool)
			continue;
		*c = (struct client){ .i = (int)n_clients++, .final = true,
				      .node = &sim->nodes[i] };
		think(c, 10 * MS);
	}
}

bool load_final_done(void)
{
	if (!final)
		return false;
	for (unsigned i = 0; i < n_clients; i++)
		if (clients[i].final && clients[i].node->in_pool &&
		    clients[i].phase < 2)
			return false;
	return true;
}

void load_free(void)
{
	for (size_t i = 0; i < n_ops; i++) {
		buf_deinit(&ops[i]->encoded);
		free(ops[i]);
	}
	n_ops = 0;
	map_deinit(&by_id);
}
