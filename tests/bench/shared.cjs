// SPDX-License-Identifier: BSD-3-Clause
// What the benchmarks have in common: cores, ports, processes, medians and the table.
'use strict';
const {execFileSync} = require('node:child_process');
const net = require('node:net');

/* The cores this process may use: the last for what is measured, the first for the load. */
function findCores(name)
{
    const text = execFileSync('taskset', ['-cp', String(process.pid)], {encoding: 'utf8'});
    const cores = text.split(':').pop().trim().split(',').flatMap(range => {
        const [from, to] = range.split('-').map(Number);
        return Array.from({length: (to ?? from) - from + 1}, (_, i) => from + i);
    });
    if (cores.length < 2)
        process.stderr.write(`${name}: only one core; servers and load share it, and the rates say little\n`);
    return {load: cores[0], server: cores[cores.length - 1]};
}

function freePort()
{
    return new Promise((done, failed) => {
        const server = net.createServer().on('error', failed);
        server.listen(0, '127.0.0.1', () => {
            const {port} = server.address();
            server.close(() => done(port));
        });
    });
}

/* Ready is when a CONNECT has been answered. */
function brokerAnswers(port)
{
    return new Promise(done => {
        const socket = net.connect(port, '127.0.0.1');
        socket.on('connect', () => socket.write(Buffer.from('100e00044d5154540402000000026262', 'hex')));
        socket.on('data', data => { done(data[0] === 0x20 && data[3] === 0); socket.destroy(); });
        socket.on('error', () => done(false));
        socket.on('close', () => done(false));
    });
}

function median(values)
{
    const v = [...values].sort((a, b) => a - b);
    return v.length % 2 ? v[(v.length - 1) / 2] : (v[v.length / 2 - 1] + v[v.length / 2]) / 2;
}

/* Runs the sides in turn. What was measured is reported as medians, ratios as the median of each round's own. */
async function interleave(rounds, sides)
{
    const results = sides.map(() => []);
    for (let round = 0; round < rounds; round++)
        for (const [i, side] of sides.entries())
            results[i].push(await side());
    const of = (i, key) => median(results[i].map(r => r[key]));
    const ratio = (i, j, f, g = f) => {
        const all = results[i].map((r, round) => f(r) / g(results[j][round]));
        return {median: median(all), low: Math.min(...all), high: Math.max(...all)};
    };
    return {results, of, ratio};
}

const count = value => Math.round(value).toLocaleString('en-US');
const micro = value => value.toFixed(2);
const range = r => `${r.median.toFixed(2)} (${r.low.toFixed(2)} to ${r.high.toFixed(2)})`;

/* rows: {what, ...head's other keys, target, met}; head names the columns in their order. */
function printTable(head, rows)
{
    const keys = Object.keys(head);
    const width = Object.fromEntries(keys.map(k => [k, Math.max(...[head, ...rows].map(r => r[k].length))]));
    const cell = (r, k) => k === 'what' ? r[k].padEnd(width[k]) : r[k].padStart(width[k]);
    const verdict = r => r.target === '' || r === head ? '' : r.met ? '  met' : '  missed';
    for (const r of [head, ...rows])
        process.stdout.write(keys.map(k => cell(r, k)).join('  ').trimEnd() + verdict(r) + '\n');
}

function say(text)
{
    if (process.stderr.isTTY)
        process.stderr.write(`\r\x1b[K${text}`);
}

module.exports = {brokerAnswers, count, findCores, freePort, interleave, median, micro, printTable, range, say};
