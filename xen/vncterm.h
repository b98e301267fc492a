/* xenpool-vncterm: one text console for any number of viewers. A process of its
 * own, because it believes neither side: it reads what a guest writes and what
 * viewers send.
 *
 * It has two descriptors from whoever starts it: the terminal (a pty or a
 * socket) and a listening Unix socket. It ends with the terminal. Viewers get RFB
 * (vncterm_rfb.c, the terminal drawn by vncterm_screen.c) or the terminal's own
 * bytes (vncterm_raw.c).
 */
#ifndef XEN_VNCTERM_H
#define XEN_VNCTERM_H

#include <poll.h>
#include <pthread.h>

#include "base/buf.h"

#define VT_MAX_VIEWERS 16
#define VT_TYPED_MAX 4096 /* bytes that wait for the terminal; more are lost */

struct vncterm;
struct screen;

/* How viewers see the terminal. The main thread's, but for what says else. */
struct vt_mode {
	int (*init)(struct vncterm *v);
	/* What the guest wrote. */
	void (*output)(struct vncterm *v, const char *p, size_t n);
	/* Somebody connected; takes fd. */
	void (*viewer)(struct vncterm *v, int fd);
	/* Descriptors to wait for, at most VT_MAX_VIEWERS; NULL: none. */
	size_t (*fds)(struct vncterm *v, struct pollfd *p);
	void (*ready)(struct vncterm *v, const struct pollfd *p, size_t n);
};

extern const struct vt_mode vt_rfb, vt_raw;

struct vncterm {
	const struct vt_mode *mode;
	int tty, listener, wake;
	char title[64];
	void *mode_data;
	pthread_mutex_t lock; /* for typed */
	struct buf typed;
};

/* Any thread: what goes to the guest. */
void vt_type(struct vncterm *v, const char *p, size_t n);
/* Any thread: how much of that there is room for. */
size_t vt_room(struct vncterm *v);

/* ---- vncterm_screen.c: the terminal as pixels; any thread ---- */
#define SCREEN_COLS 80
#define SCREEN_ROWS 24
#define CELL_W 8
#define CELL_H 18
#define SCREEN_W (SCREEN_COLS * CELL_W)
#define SCREEN_H (SCREEN_ROWS * CELL_H)

struct rect {
	int x0, y0, x1, y1; /* pixels; x1, y1 beyond the last */
};

/* pixels: SCREEN_W * SCREEN_H of 0x00BBGGRR, borrowed for ever. */
struct screen *screen_new(struct vncterm *v, uint32_t *pixels);
/* Draws what the guest wrote; what has changed, empty if nothing. */
struct rect screen_write(struct screen *s, const char *p, size_t n);

enum { KEY_SHIFT = 1, KEY_ALT = 2, KEY_CTRL = 4 };
/* A key (an X keysym, as RFB has them) that went down. */
void screen_key(struct screen *s, uint32_t keysym, unsigned modifiers);

/* ---- vncterm_font.c ---- */
/* Is the pixel of this character's cell lit? Characters that are not drawn
 * have a frame. */
bool font_pixel(uint32_t c, int x, int y);

#endif
