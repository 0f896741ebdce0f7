/* SPDX-License-Identifier: BSD-3-Clause */
#include "http.h"

#include "session.h"
#include "web.gen.h"

void mqsync_http_fail(unsigned status, enum mqsync_code code, const char *text, struct mqsync_http_answer *ret)
{
    static const struct mqsync_slice nothing;
    struct mqsync_error e;

    mqsync_fail(&e, code, "%s", text);
    ret->status = status;
    ret->content_type = "application/json";
    mqsync_error_encode(&ret->body, &e, nothing, nothing, nothing, false, 0);
}

static void answer_health(struct mqsync_bridge *b, struct mqsync_http_answer *ret)
{
    bool up = mqsync_upstream_is_up(b->upstream);

    ret->status = up ? 200 : 503;
    ret->content_type = "application/json";
    mqsync_buf_add_str(&ret->body,
                       up ? "{\"status\":\"ok\",\"broker\":true}" : "{\"status\":\"degraded\",\"broker\":false}");
}

static void answer_metrics(struct mqsync_bridge *b, struct mqsync_http_answer *ret)
{
    b->metrics.upstream_up = mqsync_upstream_is_up(b->upstream);
    b->metrics.queue_bytes = 0;
    b->metrics.http_open = b->rests.n;
    for (const struct mqsync_session *s = b->sessions; s; s = s->next)
        b->metrics.queue_bytes += s->queue.bytes;
    ret->status = 200;
    ret->content_type = "text/plain; version=0.0.4";
    mqsync_metrics_print(&b->metrics, &ret->body);
}

/* The example app. False: not one of its files. */
static bool answer_page(struct mqsync_slice path, struct mqsync_http_answer *ret)
{
    static const struct {
        const char *path, *type;
        const unsigned char *bytes;
        size_t n;
    } files[] = {
        {"/", "text/html; charset=utf-8", mqsync_web_index_html, sizeof(mqsync_web_index_html)},
        {"/style.css", "text/css; charset=utf-8", mqsync_web_style_css, sizeof(mqsync_web_style_css)},
        {"/app.js", "text/javascript; charset=utf-8", mqsync_web_app_js, sizeof(mqsync_web_app_js)},
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        if (!mqsync_slice_equal(path, mqsync_slice_str(files[i].path)))
            continue;
        ret->status = 200;
        ret->content_type = files[i].type;
        ret->policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
                      "form-action 'none'; frame-ancestors 'none'";
        mqsync_buf_add(&ret->body, files[i].bytes, files[i].n);
        return true;
    }
    return false;
}

void mqsync_http_get(struct mqsync_bridge *b, struct mqsync_slice path, struct mqsync_http_answer *ret)
{
    if (mqsync_slice_equal(path, MQSYNC_SLICE("/healthz")))
        answer_health(b, ret);
    else if (mqsync_slice_equal(path, MQSYNC_SLICE("/metrics")))
        answer_metrics(b, ret);
    else if (!answer_page(path, ret))
        mqsync_http_fail(404, MQSYNC_INVALID_MESSAGE, "there is nothing at this path", ret);
}

bool mqsync_http_is_websocket(const char *path, const char **ret_collections)
{
    const char *list = path + 4, *end;

    *ret_collections = NULL;
    if (strcmp(path, "/ws") == 0)
        return true;
    if (strncmp(path, "/ws/", 4) != 0)
        return false;
    *ret_collections = list;
    for (;; list = end + 1) {
        end = strchrnul(list, ',');
        if (!mqsync_collection_valid((struct mqsync_slice){list, (size_t)(end - list)}))
            return false;
        if (!*end)
            return true;
    }
}

bool mqsync_http_origin_allowed(const struct mqsync_config *config, struct mqsync_slice origin)
{
    if (origin.n == 0)
        return true;
    for (size_t i = 0; i < config->bridge.allowed_origins_n; i++) {
        struct mqsync_slice allowed = mqsync_slice_str(config->bridge.allowed_origins[i]);
        if (mqsync_slice_equal(allowed, MQSYNC_SLICE("*")) || mqsync_slice_equal(allowed, origin))
            return true;
    }
    return false;
}
