import { cheapScrypt } from '../hub/cheap-scrypt.ts'

/** `node --import`: for programs whose many secrets would cost minutes. All that talk with each other need it. */
cheapScrypt()
