import { render } from 'preact'
import { App } from './components/App'
import './style/base.css'
import './style/cases.css'
import './style/views.css'
import './style/panel.css'

render(<App />, document.getElementById('page')!)
