/* make_image BASE OUT OBJECTS: adds rows like those of real pools to a backup
 * until it has so many: VMs with metrics, guest metrics, two disks, a CD drive
 * and an interface each. For measurements of large pools; the same arguments
 * give the same image. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/text.h"
#include "raftdb/store.h"
#include "schema/gen/schema_ids.h"

static int64_t fixed_time(void *data)
{
	return 1700000000000;
}

static void counted(void *data, void *out, size_t n)
{
	static uint64_t state = 1;

	for (uint8_t *p = out; n > 0; n--) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		*p++ = (uint8_t)(state >> 56);
	}
}

static struct store *load(const char *path)
{
	struct store_view *v = NULL;
	struct buf b = BUF_INIT;
	struct store *s = store_new();
	char why[200] = "does not fit its digest";
	FILE *f = fopen(path, "re");
	size_t n;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	do {
		buf_reserve(&b, 65536);
		n = fread(b.data + b.len, 1, 65536, f);
		b.len += n;
	} while (n > 0);
	fclose(f);
	if (image_unpack(b.data, b.len, &v, why, sizeof why) < 0 ||
	    !store_load(s, v)) {
		fprintf(stderr, "%s: %s\n", path, why);
		exit(1);
	}
	store_view_free(v);
	buf_deinit(&b);
	return s;
}

static size_t count(const struct store *s)
{
	size_t n = 0;

	for (unsigned i = 0; i < schema_n_classes; i++)
		n += store_count(s, (int)i);
	return n;
}

static void create(struct txn *t, int cls, char ref[REF_LEN + 1])
{
	const struct class_def *c = &schema_classes[cls];
	char uuid[UUID_LEN + 1];

	ref_new(ref);
	uuid_new(uuid);
	txn_create(t, c, ref);
	if (c->f_uuid >= 0)
		txn_set(t, c, ref, (unsigned)c->f_uuid, value_stringz(uuid));
}

#define SET(t, cls, ref, field, v) \
	txn_set(t, &schema_classes[CLASS_##cls], ref, F_##cls##_##field, v)

static void add_disk(struct txn *t, const char *vm, const char *sr, unsigned i,
		     unsigned k)
{
	char vdi[REF_LEN + 1], vbd[REF_LEN + 1];

	create(t, CLASS_VBD, vbd);
	SET(t, VBD, vbd, VM, value_stringz(vm));
	SET(t, VBD, vbd, userdevice, value_printf("%u", k));
	if (k == 2)
		return;
	create(t, CLASS_VDI, vdi);
	SET(t, VDI, vdi, name_label, value_printf("disk %u of server %u", k, i));
	SET(t, VDI, vdi, SR, value_stringz(sr));
	SET(t, VDI, vdi, virtual_size, value_int((int64_t)(i % 64 + 1) << 30));
	SET(t, VBD, vbd, VDI, value_stringz(vdi));
}

static void add_vm(struct store *s, const struct record *like, const char *sr,
		   const char *network, unsigned i)
{
	const struct class_def *c = &schema_classes[CLASS_VM];
	char vm[REF_LEN + 1], ref[REF_LEN + 1];
	struct txn *t = txn_new("bench");

	create(t, CLASS_VM, vm);
	for (unsigned f = 0; f < c->n_fields; f++)
		if ((int)f != c->f_uuid && c->fields[f].relation == RELATION_NONE)
			txn_set(t, c, vm, f, value_ref(like->fields[f]));
	SET(t, VM, vm, is_a_template, value_bool(false));
	SET(t, VM, vm, is_default_template, value_bool(false));
	SET(t, VM, vm, name_label, value_printf("server %u", i));
	create(t, CLASS_VM_metrics, ref);
	SET(t, VM, vm, metrics, value_stringz(ref));
	create(t, CLASS_VM_guest_metrics, ref);
	SET(t, VM, vm, guest_metrics, value_stringz(ref));
	for (unsigned k = 0; k < 3; k++)
		add_disk(t, vm, sr, i, k);
	create(t, CLASS_VIF, ref);
	SET(t, VIF, ref, VM, value_stringz(vm));
	SET(t, VIF, ref, network, value_stringz(network));
	SET(t, VIF, ref, MAC, value_printf("02:00:%02x:%02x:%02x:00", i >> 16,
					   i >> 8 & 255, i & 255));
	if (store_apply(s, t).status != TXN_OK) {
		fprintf(stderr, "server %u does not fit\n", i);
		exit(1);
	}
	txn_free(t);
}

/* A few SRs: sets of thousands of disks are rare. */
static const char *sr_of(struct store *s, unsigned i)
{
	static char refs[100][REF_LEN + 1];
	char *ref = refs[i % ARRAY_LEN(refs)];
	struct txn *t;

	if (*ref)
		return ref;
	t = txn_new("bench");
	create(t, CLASS_SR, ref);
	store_apply(s, t);
	txn_free(t);
	return ref;
}

static const char *network_of(struct store *s, unsigned i)
{
	static char refs[100][REF_LEN + 1];
	char *ref = refs[i % ARRAY_LEN(refs)];
	struct txn *t;

	if (*ref)
		return ref;
	t = txn_new("bench");
	create(t, CLASS_network, ref);
	store_apply(s, t);
	txn_free(t);
	return ref;
}

int main(int argc, char **argv)
{
	static const struct env_ops ops = { fixed_time, fixed_time, counted,
					    NULL };
	struct record *like = NULL;
	struct store_view *v;
	struct buf b = BUF_INIT;
	struct store *s;
	size_t want;
	FILE *f;

	if (argc != 4) {
		fprintf(stderr, "usage: make_image BASE OUT OBJECTS\n");
		return 2;
	}
	env_replace(&ops);
	s = load(argv[1]);
	want = strtoul(argv[3], NULL, 10);
	for (struct record *r = store_first(s, CLASS_VM); r && !like;
	     r = store_next(s, r))
		if (record_bool(r, F_VM_is_default_template))
			like = record_ref(r);
	for (unsigned i = 0; like && count(s) < want; i++)
		add_vm(s, like, sr_of(s, i), network_of(s, i), i);
	v = store_view_new(s);
	f = fopen(argv[2], "wxe");
	if (!like || image_pack(v, &b) < 0 || !f ||
	    fwrite(b.data, 1, b.len, f) != b.len || fclose(f)) {
		fprintf(stderr, "%s cannot be made\n", argv[2]);
		return 1;
	}
	printf("%zu objects, %zu bytes\n", count(s), b.len);
	record_unref(like);
	store_view_free(v);
	store_free(s);
	buf_deinit(&b);
	return 0;
}
