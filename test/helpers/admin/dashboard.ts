import { readFileSync } from 'node:fs'
import { projectPath } from '../core/project.ts'

interface Dashboard {
  readonly panels: readonly { readonly targets?: readonly { readonly expr: string }[] }[]
}

/** What the dashboard of doc/grafana asks Prometheus, with its variables as they are there. */
export function dashboardQueries(): string[] {
  const { panels }: Dashboard = JSON.parse(readFileSync(projectPath('doc/grafana/symport.json'), 'utf8'))
  return panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
}
