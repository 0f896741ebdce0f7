// SPDX-License-Identifier: BSD-3-Clause
// What the bridge is measured against: a WebSocket server that does what the protocol's documentation shows, and no more.
// It keeps nothing and checks nothing. Prints its port once it listens.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { WebSocketServer, WebSocket } = require('ws');

const subscribers = new Map(); // collection -> Set of clients
const versions = new Map(); // collection and record -> version

function broadcast(collection, message, sender) {
    const text = JSON.stringify(message);
    for (const client of subscribers.get(collection) ?? []) {
        if (client !== sender && client.readyState === WebSocket.OPEN) {
            client.send(text);
        }
    }
}

function write(client, { type, collection, recordId, data, timestamp }) {
    const key = `${collection}/${recordId}`;
    const version = (versions.get(key) ?? 0) + 1;
    versions.set(key, version);
    broadcast(collection, { type, collection, recordId, data, timestamp, metadata: { version, userId: client.userId } }, client);
}

function receive(client, text) {
    const message = JSON.parse(text);
    const { type, collection } = message;
    switch (type) {
    case 'auth':
        client.userId = 'someone';
        client.send(JSON.stringify({ type: 'authenticated' }));
        break;
    case 'subscribe':
        if (!subscribers.has(collection)) {
            subscribers.set(collection, new Set());
        }
        subscribers.get(collection).add(client);
        client.send(JSON.stringify({ type: 'subscribed', collection, metadata: { recordCount: 0 } }));
        break;
    case 'unsubscribe':
        subscribers.get(collection)?.delete(client);
        client.send(JSON.stringify({ type: 'unsubscribed', collection }));
        break;
    case 'insert':
    case 'update':
    case 'delete':
        write(client, message);
        break;
    case 'ping':
        client.send(JSON.stringify({ type: 'pong' }));
        break;
    default:
        client.send(JSON.stringify({ type: 'error', error: 'unknown type', code: 'INVALID_MESSAGE' }));
    }
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/ws', perMessageDeflate: false, backlog: 4096 });
server.on('connection', (client) => {
    client.userId = '';
    client.on('message', (text) => receive(client, text));
    client.on('close', () => subscribers.forEach((clients) => clients.delete(client)));
});
server.on('listening', () => console.log(server.address().port));
