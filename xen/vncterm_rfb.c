/* RFB for the viewers, by libvncserver. Each viewer has threads of its own there:
 * one that does not read stops nobody else, and loses its connection when it has
 * taken nothing for MAX_WAIT_MS.
 */
#include "xen/vncterm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <rfb/rfb.h>

#include "base/log.h"

#define MAX_WAIT_MS 20000
#define FRAME_MS 40 /* changes gather so long */

struct rfb {
	struct vncterm *v;
	rfbScreenInfoPtr server;
	struct screen *screen;
	atomic_uint n;
};

struct viewer {
	unsigned modifiers;
	bool told;
};

static void library_says(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text[strcspn(text, "\r\n")] = '\0';
	log_debug("rfb: %s", text);
}

/* ---- on the viewers' threads ---- */

static const struct {
	uint32_t keysym;
	unsigned modifier;
} modifiers[] = {
	{ 0xffe1, KEY_SHIFT }, { 0xffe2, KEY_SHIFT }, { 0xffe3, KEY_CTRL },
	{ 0xffe4, KEY_CTRL },  { 0xffe7, KEY_ALT },   { 0xffe8, KEY_ALT },
	{ 0xffe9, KEY_ALT },   { 0xffea, KEY_ALT },
};

static void on_key(rfbBool down, rfbKeySym keysym, rfbClientPtr cl)
{
	struct rfb *r = cl->screen->screenData;
	struct viewer *who = cl->clientData;

	for (size_t i = 0; i < ARRAY_LEN(modifiers); i++) {
		if (modifiers[i].keysym != keysym)
			continue;
		if (down)
			who->modifiers |= modifiers[i].modifier;
		else
			who->modifiers &= ~modifiers[i].modifier;
		return;
	}
	if (down)
		screen_key(r->screen, keysym, who->modifiers);
}

/* The first one tells that the handshake is over. */
static void on_request(rfbClientPtr cl, rfbFramebufferUpdateRequestMsg *m)
{
	struct viewer *who = cl->clientData;

	if (!who->told)
		log_info("a viewer is here, RFB 3.%d", cl->protocolMinorVersion);
	who->told = true;
}

static void on_gone(rfbClientPtr cl)
{
	struct rfb *r = cl->screen->screenData;

	free(cl->clientData);
	cl->clientData = NULL;
	atomic_fetch_sub(&r->n, 1);
}

static enum rfbNewClientAction on_client(rfbClientPtr cl)
{
	struct rfb *r = cl->screen->screenData;

	cl->clientData = xcalloc(1, sizeof(struct viewer));
	cl->clientGoneHook = on_gone;
	cl->clientFramebufferUpdateRequestHook = on_request;
	atomic_fetch_add(&r->n, 1);
	return RFB_CLIENT_ACCEPT;
}

static void on_pointer(int buttons, int x, int y, rfbClientPtr cl)
{
	/* There is nothing to point at. */
}

/* ---- on the main thread ---- */

static int rfb_init(struct vncterm *v)
{
	struct rfb *r = xcalloc(1, sizeof(*r));
	rfbScreenInfoPtr s;

	rfbLog = rfbErr = library_says;
	s = rfbGetScreen(NULL, NULL, SCREEN_W, SCREEN_H, 8, 3, 4);
	if (!s)
		return -ENOMEM;
	s->frameBuffer = xcalloc(SCREEN_W * SCREEN_H, 4);
	s->desktopName = v->title;
	s->screenData = r;
	s->port = s->ipv6port = 0; /* nothing on TCP */
	s->autoPort = FALSE;
	s->udpPort = 0;
	s->httpDir = NULL;
	s->httpPort = s->http6Port = 0;
	s->alwaysShared = TRUE;
	s->cursor = NULL;
	s->deferUpdateTime = FRAME_MS;
	s->kbdAddEvent = on_key;
	s->ptrAddEvent = on_pointer;
	s->newClientHook = on_client;
	s->permitFileTransfer = FALSE;
	rfbMaxClientWait = MAX_WAIT_MS;
	rfbInitServer(s);
	s->backgroundLoop = TRUE; /* threads for each viewer */
	r->v = v;
	r->server = s;
	r->screen = screen_new(v, (uint32_t *)(void *)s->frameBuffer);
	v->mode_data = r;
	return 0;
}

static void rfb_output(struct vncterm *v, const char *p, size_t n)
{
	struct rfb *r = v->mode_data;
	struct rect c = screen_write(r->screen, p, n);

	if (c.x0 < c.x1 && c.y0 < c.y1)
		rfbMarkRectAsModified(r->server, c.x0, c.y0, c.x1, c.y1);
}

static void rfb_viewer(struct vncterm *v, int fd)
{
	struct rfb *r = v->mode_data;
	rfbClientPtr cl;

	if (atomic_load(&r->n) >= VT_MAX_VIEWERS) {
		log_warn("too many viewers");
		close(fd);
		return;
	}
	cl = rfbNewClient(r->server, fd);
	if (cl)
		rfbStartOnHoldClient(cl);
}

const struct vt_mode vt_rfb = {
	.init = rfb_init,
	.output = rfb_output,
	.viewer = rfb_viewer,
};
