// SPDX-License-Identifier: BSD-3-Clause
// A backend of the kind that docs/migration.md moves away from: what SyncLayer's documentation shows for Node, with the
// database filled in (SQLite, by its command line tool). Tokens are HS256 JWTs with a userId.
//   node old-backend.mjs DATABASE KEYFILE ADDRESS:PORT
import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import { WebSocketServer } from 'ws';

const [database, keyFile, listen] = process.argv.slice(2);
const [host, port] = listen.split(':');
const subscribers = new Map(); // by collection

const sql = (text) => JSON.parse(execFileSync('sqlite3', ['-json', database, text], { encoding: 'utf8' }) || '[]');
const quote = (value) => (value === null ? 'NULL' : `CAST(X'${Buffer.from(String(value)).toString('hex')}' AS TEXT)`);

sql(`CREATE TABLE IF NOT EXISTS records (collection TEXT, id TEXT, data TEXT, version INTEGER, updated_at TEXT,
    deleted INTEGER, PRIMARY KEY (collection, id))`);

function userOf(token = '') {
    const key = fs.readFileSync(keyFile, 'utf8').replace(/\n$/, '');
    const [head, claims, signature] = token.split('.');
    const expected = createHmac('sha256', key).update(`${head}.${claims}`).digest('base64url');
    return signature === expected ? JSON.parse(Buffer.from(claims, 'base64url')).userId : undefined;
}

function save({ type, collection, recordId, data, timestamp }) {
    const where = `collection = ${quote(collection)} AND id = ${quote(recordId)}`;
    const [before] = sql(`SELECT data, version FROM records WHERE ${where}`);
    const after = type === 'update' ? { ...JSON.parse(before?.data ?? '{}'), ...data } : data;
    const version = (before?.version ?? 0) + 1;
    sql(`INSERT OR REPLACE INTO records VALUES (${quote(collection)}, ${quote(recordId)},
        ${quote(JSON.stringify(after ?? {}))}, ${version}, ${quote(timestamp)}, ${type === 'delete' ? 1 : 0})`);
    return version;
}

function handle(socket, userId, message) {
    const { type, collection, recordId, data } = message;
    const tell = (answer) => socket.send(JSON.stringify(answer));
    if (type === 'subscribe') {
        subscribers.set(collection, (subscribers.get(collection) ?? new Set()).add(socket));
        tell({ type: 'subscribed', collection });
    } else if (['insert', 'update', 'delete'].includes(type)) {
        const timestamp = message.timestamp ?? new Date().toISOString();
        const version = save({ ...message, timestamp });
        const event = JSON.stringify({ type, collection, recordId, data, timestamp, metadata: { version, userId } });
        for (const other of subscribers.get(collection) ?? []) {
            if (other !== socket) {
                other.send(event);
            }
        }
    } else if (type === 'ping') {
        tell({ type: 'pong' });
    }
}

new WebSocketServer({ host, port: Number(port) }).on('connection', (socket, request) => {
    const userId = userOf(new URL(request.url, 'ws://localhost').searchParams.get('token'));
    if (!userId) {
        socket.send(JSON.stringify({ type: 'error', error: 'Invalid token', code: 'AUTH_FAILED' }));
        socket.close();
        return;
    }
    socket.on('message', (text) => handle(socket, userId, JSON.parse(text)));
    socket.on('close', () => subscribers.forEach((sockets) => sockets.delete(socket)));
}).on('listening', () => console.log(`the old backend listens on ${listen}`));
