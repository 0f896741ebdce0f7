// SPDX-License-Identifier: BSD-3-Clause
// wscat, the tool that most people try a WebSocket with first, against /ws.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import { after, test } from 'node:test';
import { startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { repository } from '../lib/env.mjs';
import { Waiters } from '../lib/wait.mjs';

const { broker, bridge, stop } = await startBoth();
after(stop);

/** wscat on a terminal of its own (script(1) makes it): say(text), and until(pattern) in what it has printed. */
function wscat(...args) {
    const command = [process.execPath, path.join(repository, 'tests/node_modules/wscat/bin/wscat'), '--no-color', ...args];
    const quoted = command.map((word) => `'${word}'`).join(' ');
    const child = spawn('script', ['--quiet', '--return', '--flush', '--command', `stty -echo cols 500; ${quoted}`, '/dev/null']);
    const waiters = new Waiters();
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text) => {
            printed += text;
            waiters.wake();
        });
    }
    after(() => child.kill());
    return {
        say: (message) => child.stdin.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`),
        until: (pattern) => waiters.until(() => pattern.exec(printed), () => `${pattern} from wscat; it printed:\n${printed}`),
        ended: new Promise((resolve) => {
            child.once('close', resolve);
        }),
        interrupt: () => child.stdin.write('\x03'),
    };
}

test('a conversation with wscat', async () => {
    const collection = unique('todos');
    const person = wscat('-c', bridge.url());
    await person.until(/Connected/);
    person.say({ type: 'subscribe', collection });
    await person.until(/< \{"type":"subscribed","collection":"todos[^"]*","metadata":\{"recordCount":0,/);
    person.say({ type: 'insert', collection, recordId: 'milk', data: { text: 'Milk' }, metadata: { mutationId: 'web-1' } });
    await person.until(/< \{"type":"ack",.*"metadata":\{"mutationId":"web-1","version":1,"seq":1\}\}/);
    const device = await broker.client();
    await device.short(collection, 'milk', 'update', { done: true });
    await person.until(/< \{"type":"update",.*"data":\{"done":true\}/);
    person.say('nonsense');
    await person.until(/< \{"type":"error",.*"code":"INVALID_MESSAGE"/);
    person.interrupt();
    assert.equal(await person.ended, 0);
});

test('wscat -x: one message and its answer', async () => {
    const once = wscat('-c', bridge.url(), '-x', '{"type":"ping"}', '-w', '5');
    await once.until(/\{"type":"pong"/);
    once.interrupt();
    await once.ended;
});
