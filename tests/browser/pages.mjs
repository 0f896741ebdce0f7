// SPDX-License-Identifier: BSD-3-Clause
// A real browser with pages of origins of the test's own, and in each page a few lines to talk WebSocket.
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { program, repository } from '../lib/env.mjs';

const require = createRequire(import.meta.url);
const { chromium } = require('playwright-core');
const mqttForBrowsers = path.join(repository, 'tests/node_modules/mqtt/dist/mqtt.min.js');

/** Runs in the page: `await talk(url)` gives {send, take, close, closed}. */
function inPage() {
    window.talk = async (url, subprotocols) => {
        const socket = new WebSocket(url, subprotocols ?? []);
        const messages = [];
        let wake = () => {};
        const closed = new Promise((resolve) => {
            socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
        });
        socket.onmessage = ({ data }) => {
            messages.push(JSON.parse(data));
            wake();
        };
        await Promise.race([new Promise((resolve) => {
            socket.onopen = resolve;
        }), closed]);
        return {
            socket, closed, messages,
            send: (message) => socket.send(JSON.stringify(message)),
            take: async (type) => {
                for (;;) {
                    const i = messages.findIndex((m) => m.type === type);
                    if (i >= 0) {
                        return messages.splice(i, 1)[0];
                    }
                    await new Promise((resolve) => {
                        wake = resolve;
                    });
                }
            },
        };
    };
}

export class Browser {
    static async start() {
        const self = new Browser();
        self.files = new Map([['/', '<!doctype html><script src="/mqtt.min.js"></script>'], ['/mqtt.min.js', fs.readFileSync(mqttForBrowsers)]]);
        self.server = http.createServer((request, response) => {
            const body = self.files.get(request.url);
            response.writeHead(body ? 200 : 404, { 'Content-Type': request.url.endsWith('.js') ? 'text/javascript' : 'text/html' });
            response.end(body);
        });
        await new Promise((resolve) => self.server.listen(0, '127.0.0.1', resolve));
        self.port = self.server.address().port;
        const executablePath = process.env.MQSYNC_CHROMIUM ?? program('chromium');
        // the sandbox needs what containers and root do not have; only pages of our own are shown
        self.chromium = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
        return self;
    }

    /** Two names of the same server are two origins to a browser. */
    get origin() {
        return `http://127.0.0.1:${this.port}`;
    }

    get otherOrigin() {
        return `http://localhost:${this.port}`;
    }

    /** A page of its own, as in another browser: {page, errors}. */
    async page(where = '/', origin = this.origin) {
        const context = await this.chromium.newContext();
        const page = await context.newPage();
        page.setDefaultTimeout(20_000);
        page.complaints = [];
        page.on('pageerror', (error) => page.complaints.push(String(error)));
        await page.addInitScript(inPage);
        await page.goto(origin + where);
        return page;
    }

    async stop() {
        await this.chromium.close();
        await new Promise((resolve) => this.server.close(resolve));
    }
}
