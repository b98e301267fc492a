/* What the files about storage share: repositories (SR), their connections
 * (PBD) and disks (VDI). Every call here is rows only and one transaction, for the
 * drivers are two that need no host's help:
 *   dummy  disks without contents: a domain does not get them
 *   file   files in a folder (device_config: location) that somebody else made:
 *          a VDI is introduced, its location is the file's name. A name that
 *          ends in .qcow2 or .vhd is of that format, any other raw. Whether
 *          the file is there, and may be opened, the executor finds out.
 */
#ifndef POOL_STORAGE_H
#define POOL_STORAGE_H

#include "pool/vm_calls.h"

#define SR_DRIVER "dummy"
#define SR_FILES "file"
/* Disks without contents take no room, but clients choose a repository by the
 * room that it says is left. */
#define SR_DRIVER_SIZE (1024LL * 1024 * MIB)

/* ---- sr.c ---- */
extern const struct handler_def sr_handlers[];
bool sr_has_driver(const struct record *sr);
bool sr_can(const struct record *sr, const char *feature);
/* What the driver needs to reach the SR is not there, or not fit: the error. */
struct value *sr_config_error(const char *type,
			      const struct value *device_config);
bool sr_has_plugged_pbd(const struct store *s, const struct record *sr);
struct value *sr_allowed_operations(const struct record *sr, bool plugged);
/* virtual_allocation once the disks grow by so many bytes. sr must not have
 * changed meanwhile: t gets a guard for it. */
void sr_grow(struct txn *t, const struct store *s, const struct record *sr,
	     int64_t bytes);
/* Rows for the drivers that this version has and the pool does not know. */
void sm_add_drivers(const struct store *s, struct txn *t);
/* The same, by the master: a pool may be older than one of them. */
void sm_keep_drivers(struct pool *p);
/* Errors of many calls, as whole values. */
struct value *error_of_sr(const char *code, const char *sr_ref);

/* ---- pbd.c ---- */
extern const struct handler_def pbd_handlers[];
void pbd_add(struct txn *t, const char *host_ref, const char *sr_ref,
	     const struct value *device_config, bool plugged);

/* ---- vdi.c ---- */
extern const struct handler_def vdi_handlers[];
/* NULL if op may begin now. changed: a VBD of the disk as it will be, or NULL. */
struct value *vdi_op_error(const struct store *s, const struct record *vdi,
			   const char *op, const struct record *changed);
struct value *vdi_allowed_operations(const struct store *s,
				     const struct record *vdi,
				     const struct record *changed);
/* A disk goes, and with it what refers to it. */
void vdi_drop(const struct store *s, struct txn *t, const struct record *vdi);
/* job_image.c: has the file of a suspend image removed; called where its VDI goes.
 * False: the VDI (or what it is) is no such image. */
bool job_image_drop(const struct pool *p, struct txn *t, const char *vdi_ref);

/* ---- network.c ---- */
extern const struct handler_def network_handlers[];

/* ---- minor.c ---- */
extern const struct handler_def minor_handlers[];

/* The error of a create call's struct that lacks a member without a default,
 * NULL if there is none. */
struct value *missing_member(const struct class_def *c,
			     const struct value *args);

#endif
