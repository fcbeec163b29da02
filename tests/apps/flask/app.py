"""A small Flask app with flask-login: the session is the cookie, signed and kept nowhere else."""

import os

from flask import Flask, redirect, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
people = LoginManager(app)
people.login_view = "form"


class Person(UserMixin):
    def __init__(self, name):
        self.id = name


@people.user_loader
def load(name):
    return Person(name)


@app.get("/login")
def form():
    return '<form method="post" action="/login"><input name="username"><input name="password" type="password"></form>'


@app.post("/login")
def enter():
    name = request.form["username"]
    if request.form["password"] != f"{name}-secret":
        return "wrong", 401
    login_user(Person(name), remember=True)
    return redirect("/work")


@app.post("/logout")
def leave():
    logout_user()
    return redirect("/login")


@app.get("/work")
@login_required
def work():
    return f'Signed in as <strong>{current_user.id}</strong><form method="post" action="/logout"></form>'


@app.get("/news")
@login_required
def news():
    return "none"
