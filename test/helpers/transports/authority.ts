import { generateKeyPair, randomBytes, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { promisify } from 'node:util'
import forge from 'node-forge'

export interface IssueOptions {
  /** Host names and addresses. Default: 127.0.0.1 and localhost. */
  names?: readonly string[]
  /** Days from now, of the beginning and the end. Default: -1 and 1. */
  from?: number
  to?: number
  /** Whether it may sign others. */
  ca?: boolean
  purpose?: 'serverAuth' | 'clientAuth'
}

interface Keys {
  publicKey: string
  privateKey: string
}

function makeKeys(): Promise<Keys> {
  return promisify(generateKeyPair)('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
}

/** A certificate with its private key, both in PEM. */
export class Identity {
  readonly cert: string
  readonly key: string
  readonly #certificate: forge.pki.Certificate
  readonly #key: forge.pki.rsa.PrivateKey
  #forLeaves: Promise<Keys> | undefined

  private constructor(certificate: forge.pki.Certificate, key: string) {
    this.#certificate = certificate
    this.#key = forge.pki.privateKeyFromPem(key)
    this.cert = forge.pki.certificateToPem(certificate)
    this.key = key
  }

  /** Made by hand for tests: nothing here is shared with what is tested. */
  static async make(name: string, options: IssueOptions = {}, issuer?: Identity): Promise<Identity> {
    const { names = ['127.0.0.1', 'localhost'], from = -1, to = 1, ca = false, purpose = 'serverAuth' } = options
    const pair = await (issuer && !ca ? issuer.#leafKeys() : makeKeys())
    const certificate = forge.pki.createCertificate()
    certificate.publicKey = forge.pki.publicKeyFromPem(pair.publicKey)
    certificate.serialNumber = `01${randomBytes(8).toString('hex')}`
    certificate.validity.notBefore = new Date(Date.now() + from * 86_400_000)
    certificate.validity.notAfter = new Date(Date.now() + to * 86_400_000)
    const subject = [{ name: 'commonName', value: name }]
    certificate.setSubject(subject)
    certificate.setIssuer(issuer ? issuer.#certificate.subject.attributes : subject)
    certificate.setExtensions([
      { name: 'basicConstraints', cA: ca, critical: true },
      ...(ca ? [{ name: 'keyUsage', keyCertSign: true, critical: true }] : [{ name: 'extKeyUsage', [purpose]: true }]),
      {
        name: 'subjectAltName',
        altNames: names.map((at) => (isIP(at) ? { type: 7, ip: at } : { type: 2, value: at })),
      },
    ])
    certificate.sign(issuer ? issuer.#key : forge.pki.privateKeyFromPem(pair.privateKey), forge.md.sha256.create())
    return new Identity(certificate, pair.privateKey)
  }

  /** Keys take time: the certificates of one CA share theirs. */
  #leafKeys(): Promise<Keys> {
    this.#forLeaves ??= makeKeys()
    return this.#forLeaves
  }

  issue(name: string, options: IssueOptions = {}): Promise<Identity> {
    return Identity.make(name, options, this)
  }

  get pin(): string {
    return `sha256:${new X509Certificate(this.cert).fingerprint256}`
  }
}
