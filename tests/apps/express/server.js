// A small app as the README of express-session would have it: a cookie for every visitor, `regenerate()` at sign-in,
// `destroy()` at sign-out, and a page that a script polls.
'use strict';

const express = require('express');
const session = require('express-session');

const PEOPLE = new Map([['ann', 'ann-secret'], ['bob', 'bob-secret']]);

const app = express();
app.use(session({ secret: 'only-for-tests', resave: false, saveUninitialized: true }));
app.use(express.urlencoded({ extended: false }));

const signedIn = (req, res, next) => (req.session.user ? next() : res.redirect('/login'));

app.get('/', (req, res) => {
  res.send(`<p>Welcome. <a href="/login">Sign in</a> or go to <a href="/home">your page</a>.</p>`);
});

app.get('/login', (req, res) => {
  res.send('<form method="post" action="/login"><input name="user"><input name="password" type="password"><button>Go</button></form>');
});

app.post('/login', (req, res, next) => {
  const { user, password } = req.body;
  if (!PEOPLE.has(user) || PEOPLE.get(user) !== password) {
    return res.status(401).send('<p>No such user, or another password. <a href="/login">Again</a></p>');
  }
  req.session.regenerate((failed) => {
    if (failed) return next(failed);
    req.session.user = user;
    req.session.save((unsaved) => (unsaved ? next(unsaved) : res.redirect('/home')));
  });
});

app.get('/home', signedIn, (req, res) => {
  res.send(`<p>You are <b id="user">${req.session.user}</b>.</p><form method="post" action="/logout"><button>Leave</button></form>`);
});

app.get('/notifications', (req, res) => {
  if (!req.session.user) return res.status(401).json({ error: 'not signed in' });
  res.json({ user: req.session.user, unread: 0 });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((failed) => (failed ? next(failed) : res.clearCookie('connect.sid').redirect('/login')));
});

app.listen(Number(process.env.PORT), '127.0.0.1');
