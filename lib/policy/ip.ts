export * from '../sockets/ip.ts'
